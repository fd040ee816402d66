"""python fastface/evaluate.py --checkpoint RUN: verification figures of a model on pairs, as text, JSON and a picture.

--images DIR_OR_SHARDS --pairs FILE     the pairs of a file (LFW's layouts, or csv a,b,same[,fold])
--images SHARDS [--pairs 100000]        pairs sampled from the labels, half genuine, half impostor
--bin FILE                              an InsightFace pair file
--embeddings FOLDER --pairs FILE        for a run of task match: pairs of embeddings, with the plain cosine beside it
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="RUN", help="run or step folder, or an .onnx file"
    )
    parser.add_argument("--images", type=Path, help="shard set, folder or .tar of images")
    parser.add_argument("--pairs", default="100000", help="pairs file, or how many to sample (default: 100000)")
    parser.add_argument(
        "--embeddings", type=Path, nargs="+", default=[], help="folder of embeddings, one for each model"
    )
    parser.add_argument("--bin", type=Path, help="InsightFace .bin pair file")
    parser.add_argument("--crop", default="as-trained", help="as-trained (default), none, or a central fraction")
    parser.add_argument(
        "--flip", choices=("none", "sum", "concat"), help="use of the mirrored image (default: the model's)"
    )
    parser.add_argument("--compat", choices=("insightface",), help="also print that project's figures by its rules")
    parser.add_argument("--baselines", action="store_true", help="also score the untrained network and raw pixels")
    parser.add_argument(
        "--attributes",
        type=Path,
        metavar="FILE",
        help="csv (name, then attributes) of images or persons",
    )
    parser.add_argument("--at-fmr", type=float, default=1e-2, help="false match rate of the groups' one threshold")
    parser.add_argument("--det", action="store_true", help="also draw the DET curve (both error rates, probit axes)")
    parser.add_argument("--seed", type=int, default=0, help="of the sampled pairs")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--out", type=Path, help="folder for metrics.json, pairs.csv and verification.png (default: RUN/eval)"
    )
    options = parser.parse_args()
    from fastface.assessment import assess

    try:
        print(assess(**vars(options)))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
