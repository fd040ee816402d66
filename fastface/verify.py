"""python fastface/verify.py --recognition FILE a.jpg b.jpg: are the two faces one person's, and what that rests on.

With --detector, every photograph is cut to its face as the models' cards say; with --liveness it must show a living
person, with --temporal every clip. Then each step is printed with its time and its score, and one decision with its
reasons.

exit codes: without these options 0 whatever the comparison says, as ever; with them, or with --strict: 0 accepted,
1 not accepted. 2: wrong models or photographs.
"""

import argparse
import json
import sys
from pathlib import Path


def main() -> int:
    from fastface.arguments import parse_with_last

    options = parse_with_last(build_parser(), "photos", 2)
    images, as_json, strict = (options.pop(name) for name in ("photos", "json", "strict"))
    from fastface.verifier import Verifier

    try:
        verifier = Verifier(target_fmr=options.pop("fmr"), **options)
        decision = verifier.compare(*images)
    except (ValueError, OSError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps(decision.as_dict(), indent=1) if as_json else decision)
    return 1 if (strict or decision.checked) and not decision.accepted else 0


def build_parser() -> argparse.ArgumentParser:
    from fastface.arguments import Several

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "photos", type=Path, nargs="*", metavar="PHOTO", help="two photographs or clips: a video, or a folder of frames"
    )
    several = {"type": Path, "nargs": "+", "action": Several, "metavar": "FILE"}
    add("--recognition", **several, required=True, help="model.onnx, run or step folder; several for --fusion")
    add("--fusion", type=Path, metavar="FILE", help="makes one embedding of several --recognition: of task fusion")
    add("--match", type=Path, metavar="FILE", help="decide by this run or file of task match")
    add("--detector", metavar="NAME:FILE", help="find the faces: yunet:FILE, mtcnn:DIR or ssd:PROTOTXT,CAFFEMODEL")
    add("--align", help="how faces are cut for models whose cards do not say: five-point, crop, pad, none (not at all)")
    add("--pick", choices=("largest", "centre"), default="largest", help="which of several faces (default: largest)")
    add("--liveness", **several, default=[], help="a photograph must show a living person by each of these models")
    add("--temporal", type=Path, metavar="FILE", help="a clip must show a living person by this model of task temporal")
    add("--frames", type=int, default=8, help="of a clip that are looked at (8; --temporal has its own number)")
    add("--fps", type=float, help="of a folder of frames, for --temporal models that look at so many seconds")
    add("--live", choices=("both", "second"), default="both", help="second: the first is a picture that is trusted")
    add("--liveness-rule", metavar="RULE", help="which threshold of their cards, such as apcer=0.05 (the first: eer)")
    add("--liveness-threshold", type=float, metavar="P", help="smallest probability of live (default: their cards')")
    add("--liveness-align", help="as --align, for liveness models whose cards do not say")
    add("--prior", type=float, default=0.5, help="share of pairs that show one person, for the probability (0.5)")
    add("--fmr", type=float, default=1e-2, help="false match rate of the threshold (default: 0.01)")
    add("--strict", action="store_true", help="exit with 1 where two photographs are not accepted, in every case")
    add("--json", action="store_true", help="print the decision as JSON")
    parser.usage = "%(prog)s --recognition FILE [FILE ...] [options] PHOTO PHOTO"
    return parser


if __name__ == "__main__":
    sys.exit(main())
