"""python fastface/evaluate.py --checkpoint RUN: verification figures of a model on pairs, as text, JSON and a picture.

--images DIR_OR_SHARDS --pairs FILE     the pairs of a file (LFW's layouts, or csv a,b,same[,fold])
--images SHARDS [--pairs 100000]        pairs sampled from the labels, half genuine, half impostor
--bin FILE                              an InsightFace pair file
--protocol templates --images DIR --templates FILE --template-pairs FILE    IJB-A, IJB-B, IJB-C, YouTube Faces
"""

import argparse
import sys
from pathlib import Path

OF_PAIRS = ("pairs", "bin", "against", "baselines", "attributes", "at_fmr", "seed")
OF_TEMPLATES = ("templates", "template_pairs", "detector_scores", "norm", "embeddings")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, metavar="RUN", help="run or step folder, or an .onnx file")
    parser.add_argument("--protocol", choices=("pairs", "templates"), default="pairs")
    parser.add_argument("--images", type=Path, help="shard set, folder or .tar of images")
    parser.add_argument("--pairs", default="100000", help="pairs file, or how many to sample (default: 100000)")
    parser.add_argument("--bin", type=Path, help="InsightFace .bin pair file")
    parser.add_argument("--crop", default="as-trained", help="as-trained (default), none, or a central fraction")
    parser.add_argument(
        "--flip", choices=("none", "sum", "concat"), help="use of the mirrored image (default: the model's)"
    )
    parser.add_argument("--compat", choices=("insightface", "ijb-insightface"), help="that project's rules")
    parser.add_argument("--against", type=Path, metavar="RUN", help="another model, compared on the same pairs")
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
    group = parser.add_argument_group("--protocol templates")
    group.add_argument(
        "--templates", nargs="+", default=(), metavar="FILE", help="image, template, medium; or: folders"
    )
    group.add_argument(
        "--template-pairs", nargs="+", default=(), type=Path, metavar="FILE", help="a file for each of those"
    )
    group.add_argument(
        "--detector-scores", type=Path, metavar="FILE", help="name_5pts_score file: weights of the images"
    )
    group.add_argument("--norm", choices=("keep", "remove"), default="keep", help="of embeddings, before pooling")
    group.add_argument("--embeddings", type=Path, metavar="FILE", help=".npy, a row for each line of --templates")
    options = vars(parser.parse_args())
    templates = options.pop("protocol") == "templates"
    for name in OF_PAIRS if templates else OF_TEMPLATES:
        if options.pop(name) != parser.get_default(name):
            parser.error(
                f"--{name.replace('_', '-')} has no meaning with --protocol {'templates' if templates else 'pairs'}"
            )
    if not templates and options["checkpoint"] is None:
        parser.error("--checkpoint RUN is needed")
    try:
        if templates:
            from fastface.template_assessment import assess_templates

            print(assess_templates(**options))
        else:
            from fastface.assessment import assess

            print(assess(**options))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
