"""python fastface/verify.py --recognition FILE a.jpg b.jpg: the similarity of two faces, the decision, its grounds."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--recognition", type=Path, required=True, metavar="FILE", help="model.onnx, run or step folder"
    )
    parser.add_argument("--match", type=Path, metavar="FILE", help="decide by this run or file of task match")
    parser.add_argument(
        "--prior",
        type=float,
        default=0.5,
        help="share of pairs that show one person, for the probability (default: 0.5)",
    )
    parser.add_argument("--fmr", type=float, default=1e-2, help="false match rate of the threshold (default: 0.01)")
    parser.add_argument("images", type=Path, nargs=2, help="two photographs")
    options = parser.parse_args()
    from fastface.verifier import Verifier

    try:
        verifier = Verifier(options.recognition, match=options.match, target_fmr=options.fmr, prior=options.prior)
        comparison = verifier.compare(*options.images)
    except (ValueError, OSError) as error:
        print(f"verify.py: {error}", file=sys.stderr)
        return 2
    print(comparison)
    return 0


if __name__ == "__main__":
    sys.exit(main())
