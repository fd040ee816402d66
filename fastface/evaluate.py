"""python fastface/evaluate.py --checkpoint RUN: verification figures of a model on pairs, as text, JSON and a picture.

--images DIR_OR_SHARDS --pairs FILE     the pairs of a file (LFW's layouts, or csv a,b,same[,fold])
--images SHARDS [--pairs 100000]        pairs sampled from the labels, half genuine, half impostor
--bin FILE                              an InsightFace pair file
--embeddings FOLDER --protocol identification    1:N, without a RUN: a gallery drawn from a folder of tools/embed.py
"""

import argparse
import sys
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="run or step folder, or an .onnx file")
    parser.add_argument("--images", type=Path, help="shard set, folder or .tar of images")
    parser.add_argument("--pairs", default="100000", help="pairs file, or how many to sample (default: 100000)")
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
    searches = parser.add_argument_group("--protocol identification", "rank-r rates and TPIR at FPIR, see README.md")
    searches.add_argument("--protocol", choices=("verification", "identification"), default="verification")
    searches.add_argument("--embeddings", type=Path, metavar="FOLDER", help="made by tools/embed.py")
    searches.add_argument("--gallery-images", type=int, default=1, help="images enrolled of each identity (default: 1)")
    searches.add_argument("--template", choices=("max", "mean"), default="max", help="of several: best score, or mean")
    searches.add_argument("--unenrolled", type=float, help="share of identities that only search (default: as needed)")
    searches.add_argument("--distractors", type=Path, metavar="FOLDER", help="gallery instead, by MegaFace's protocol")
    searches.add_argument("--index", choices=("flat", "ivf", "hnsw", "pq"), default="flat", help="flat is exact")
    searches.add_argument("--candidates", type=int, default=50, help="ranks that are counted (default: 50)")
    searches.add_argument("--rank", type=int, default=1, help="within which TPIR wants the mate (default: 1)")
    searches.add_argument("--targets", help="target FPIRs, such as 1e-2,1e-3")
    options = vars(parser.parse_args())
    own = {action.dest: options.pop(action.dest) for action in searches._group_actions}

    try:
        if own.pop("protocol") == "identification":
            from fastface.identification import assess_identification

            if own["embeddings"] is None:
                raise ValueError("--protocol identification searches embeddings: give --embeddings FOLDER")
            targets = own.pop("targets")
            given = {} if targets is None else {"targets": [float(rate) for rate in targets.split(",")]}
            shared = {name: options[name] for name in ("seed", "device", "out")}
            print(assess_identification(**own, **given, **shared))
            return 0
        if options["checkpoint"] is None:
            raise ValueError("give the model: --checkpoint RUN")
        from fastface.assessment import assess

        print(assess(**options))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
