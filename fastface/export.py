"""python fastface/export.py --checkpoint RUN: ONNX files with their cards, checked, calibrated, in fp32, fp16 or int8.

--checkpoint RUN RUN2 ...              models of any task, each into its own run folder's export/
--precision int8                       model.onnx and model.int8.onnx, a .json beside each
--precision int8 --max-drop 0.002      int8 is refused where it loses more than 0.2 points: accuracy, TAR; ACER
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", required=True, metavar="RUN", help="run folders or step folders"
    )
    parser.add_argument("--out", type=Path, help="folder for the files and their cards (default: RUN/export)")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="PAIRS_OR_SHARDS",
        help="choose the thresholds on these (default: the run's first evaluation set; never a test set)",
    )
    parser.add_argument(
        "--images", type=Path, help="where a pairs file's images, or embeddings, are (default: the run's shards)"
    )
    parser.add_argument(
        "--targets",
        type=float,
        nargs="+",
        metavar="RATE",
        help="false match rates to choose thresholds for (default: 0.01 0.001), of liveness APCERs (0.1 0.05 0.01)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse targets that the pairs are too few for, instead of marking them"
    )
    parser.add_argument(
        "--precision", nargs="+", choices=("fp32", "fp16", "int8"), default=["fp32"], help="fp16, int8: beside fp32"
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="RATE",
        help="largest accepted fall of accuracy and TAR, or rise of ACER, from fp32 to fp16 and int8, where the "
        "thresholds are chosen (default: 0.01)",
    )
    parser.add_argument(
        "--int8-images",
        type=Path,
        metavar="DIR_OR_SHARDS",
        help="images that set int8's ranges (default: the run's training shards; never a test set)",
    )
    parser.add_argument("--int8-samples", type=int, metavar="N", help="how many of them (default: 256)")
    options = parser.parse_args()
    if options.out and len(options.checkpoint) > 1:
        parser.error("--out is for one --checkpoint: several are written into their own run folders")
    from fastface.ship.every_kind import export_model

    given = {key: value for key, value in vars(options).items() if key in _OPTIONAL and value is not None}
    refused = 0
    for model in options.checkpoint:
        try:
            made = export_model(
                model,
                options.precision,
                out=options.out,
                calibrate_on=options.calibrate,
                images=options.images,
                targets=options.targets,
                strict=options.strict,
                **given,
            )
        except (ValueError, OSError) as error:
            print(f"export.py: {error}", file=sys.stderr)
            return 2
        print("\n".join(file.report() for file in made.files))
        for reason in made.refused:
            print(f"export.py: {reason}", file=sys.stderr)
        refused += len(made.refused)
    return 2 if refused else 0


_OPTIONAL = ("max_drop", "int8_images", "int8_samples")

if __name__ == "__main__":
    sys.exit(main())
