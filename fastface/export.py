"""python fastface/export.py --checkpoint RUN: one ONNX file and its model.json, checked and calibrated."""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="RUN", help="run folder or step folder")
    parser.add_argument("--out", type=Path, help="folder for model.onnx and model.json (default: RUN/export)")
    parser.add_argument(
        "--calibrate",
        type=Path,
        metavar="PAIRS_OR_SHARDS",
        help="choose the thresholds on these pairs (default: the run's first evaluation set; never a test set)",
    )
    parser.add_argument(
        "--images", type=Path, help="where a pairs file's images, or embeddings, are (default: the run's shards)"
    )
    parser.add_argument(
        "--targets",
        type=float,
        nargs="+",
        default=[1e-2, 1e-3],
        metavar="FMR",
        help="false match rates to choose thresholds for (default: 0.01 0.001)",
    )
    parser.add_argument(
        "--strict", action="store_true", help="refuse targets that the pairs are too few for, instead of marking them"
    )
    options = parser.parse_args()
    from fastface.deployment import export

    try:
        made = export(
            options.checkpoint,
            out=options.out,
            calibrate_on=options.calibrate,
            images=options.images,
            targets=options.targets,
            strict=options.strict,
        )
    except (ValueError, OSError) as error:
        print(f"export.py: {error}", file=sys.stderr)
        return 2
    print(made.report())
    return 0


if __name__ == "__main__":
    sys.exit(main())
