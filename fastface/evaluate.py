"""python fastface/evaluate.py --checkpoint RUN: verification figures of a model on pairs, as text, JSON and a picture.

--images DIR_OR_SHARDS --pairs FILE     the pairs of a file (LFW's layouts, or csv a,b,same[,fold])
--images SHARDS [--pairs 100000]        pairs sampled from the labels, half genuine, half impostor
--bin FILE                              an InsightFace pair file
--pairs all --embeddings FOLDER         all pairs of a folder of tools/embed.py, counted exactly; no --checkpoint
--pairs all --images SHARDS --out DIR   the same, embedding them into DIR/embeddings first
"""

import argparse
import sys
from pathlib import Path
from typing import Any


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="run or step folder, or an .onnx file")
    parser.add_argument("--images", type=Path, help="shard set, folder or .tar of images")
    parser.add_argument("--pairs", default="100000", help="pairs file, how many to sample, or all (default: 100000)")
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
    every = parser.add_argument_group("with --pairs all")
    every.add_argument("--embeddings", type=Path, metavar="FOLDER", help="of tools/embed.py, or where to embed to")
    every.add_argument("--targets", type=rates, metavar="RATES", help="FMR of thresholds (default: 1e-1,...,1e-6)")
    every.add_argument(
        "--precision",
        choices=("float32", "half"),
        help="of the products; counts are exact either way (default: float32)",
    )
    every.add_argument("--state", type=Path, metavar="FOLDER", help="keep counts there, and go on from them")
    options = vars(parser.parse_args())
    for_all = {name: options.pop(name) for name in ("embeddings", "targets", "precision", "state")}
    for_all = {name: value for name, value in for_all.items() if value is not None}
    try:
        if options["pairs"] == "all":
            print(_assess_all(parser, options, for_all))
            return 0
        if for_all:
            parser.error(f"--{', --'.join(for_all)} go with --pairs all")
        if options["checkpoint"] is None:
            parser.error("the following arguments are required: --checkpoint")
        from fastface.assessment import assess

        print(assess(**options))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"evaluate.py: {stop or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def _assess_all(parser: argparse.ArgumentParser, options: dict[str, Any], for_all: dict[str, Any]) -> str:
    used = ("checkpoint", "images", "pairs", "device", "batch_size", "out")
    foreign = [name for name, value in options.items() if name not in used and value != parser.get_default(name)]
    if foreign:
        parser.error(f"--pairs all knows no --{', --'.join(foreign).replace('_', '-')}")
    from fastface.assessment_all import assess_all

    shared = {name: options[name] for name in ("images", "device", "batch_size", "out")}
    return assess_all(model=options["checkpoint"], **shared, **for_all)


def rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
