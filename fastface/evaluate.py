"""python fastface/evaluate.py --checkpoint RUN: what a model is worth, as text, JSON, pictures and a page.

--images DIR_OR_SHARDS --pairs FILE     the pairs of a file (LFW's layouts, or csv a,b,same[,fold])
--images SHARDS [--pairs 100000]        pairs sampled from the labels, half genuine, half impostor
--bin FILE                              an InsightFace pair file
--protocol templates --images DIR --templates FILE --template-pairs FILE    IJB-A, IJB-B, IJB-C, YouTube Faces
--protocol match --embeddings FOLDER --pairs FILE      a run of task match, with the plain cosine beside it
--protocol fusion --embeddings A B C --pairs FILE      a run of task fusion, with simpler ways to fuse beside it
--protocol liveness --images SHARDS --dev SHARDS       attack detection; several --checkpoint are an ensemble
--protocol leave-one-source-out --config FILE... --data SHARDS...   trains a run for each source on all the others and
                                                       tests it there; options of the YAML as in train.py
Without --checkpoint, on a folder that tools/embed.py made:
--protocol identification --embeddings FOLDER          1:N, in a gallery drawn from the folder
--protocol all-pairs --embeddings FOLDER               every pair there is, counted exactly; also under torchrun
--protocol full-system --scores FILE                   match and liveness decide together: a csv of scored attempts
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import NamedTuple


class Protocol(NamedTuple):
    module: str
    function: str
    options: tuple[str, ...]  # those that have a meaning there
    needed: str = ""
    several: tuple[str, ...] = ()  # of the options below that take several values, those that do so there


SEVERAL = ("checkpoint", "images", "embeddings")
IMAGES = ("checkpoint", "images", "crop", "flip", "compat", "det", "batch_size", "device", "out")
PAIRS = ("pairs", "bin", "against", "baselines", "attributes", "at_fmr", "seed", "report")
TEMPLATES = ("embeddings", "templates", "template_pairs", "detector_scores", "norm")
DETECTION = ("dev", "threshold_from", "at")
GALLERY = ("gallery_images", "template", "unenrolled", "distractors", "index", "candidates", "rank")
PROTOCOLS = {
    "pairs": Protocol("fastface.assess.pairs", "assess", (*IMAGES, *PAIRS), "checkpoint"),
    "templates": Protocol("fastface.assess.templates", "assess_templates", (*IMAGES, *TEMPLATES), "templates"),
    "match": Protocol(
        "fastface.assess.match",
        "assess_matcher",
        ("checkpoint", "embeddings", "pairs", "seed", "device", "out"),
        "checkpoint",
        several=("embeddings",),
    ),
    "liveness": Protocol(
        "fastface.assess.liveness",
        "assess_liveness",
        ("checkpoint", "images", *DETECTION, "by", "attack_groups", "batch_size", "device", "out", "report"),
        "checkpoint",
        several=("checkpoint", "images"),
    ),
    "full-system": Protocol(
        "fastface.assess.full_system",
        "assess_full_system",
        ("scores", "checkpoint", "images", "pairs", "dev", "at", "at_fmr", "at_iapar", "batch_size", "device", "out"),
        "scores",
    ),
    "fusion": Protocol(
        "fastface.assess.fusion",
        "assess_fusion",
        ("checkpoint", "embeddings", "trained_on", "set_images", "pairs", "seed", "device", "out"),
        "checkpoint",
        several=("embeddings",),
    ),
    "identification": Protocol(
        "fastface.assess.identification",
        "assess_identification",
        ("embeddings", *GALLERY, "targets", "seed", "device", "out"),
        "embeddings",
    ),
    "all-pairs": Protocol(
        "fastface.assess.all_pairs",
        "assess_all",
        ("embeddings", "targets", "precision", "state", "checkpoint", "images", "batch_size", "device", "out"),
    ),
    "leave-one-source-out": Protocol(
        "fastface.assess.leave_one_out",
        "assess_leave_one_out",
        ("config", "data", "overrides", "minutes", "out"),
        "data",
    ),
}


def main() -> int:
    parser = build_parser()
    known, options_of_run = parser.parse_known_args()
    options = {**vars(known), "overrides": options_of_run}
    name = options.pop("protocol")
    if options_of_run and name != "leave-one-source-out":
        parser.error(f"unrecognized arguments: {' '.join(options_of_run)}")
    if name == "pairs" and options["pairs"] == "all":
        name, options["pairs"] = "all-pairs", parser.get_default("pairs")
    protocol = PROTOCOLS[name]
    for option in sorted(options.keys() - set(protocol.options)):
        if options.pop(option) not in (parser.get_default(option), []):
            parser.error(f"--{option.replace('_', '-')} has no meaning with --protocol {name}")
    if protocol.needed and not options[protocol.needed]:
        parser.error(f"--protocol {name} needs --{protocol.needed}")
    for option in set(SEVERAL) & options.keys() - set(protocol.several):
        if len(options[option]) > 1:
            parser.error(f"--protocol {name} takes one --{option}")
        options[option] = next(iter(options[option]), None)
    if "checkpoint" in options:
        options["model"] = options.pop("checkpoint")
    try:
        print(getattr(importlib.import_module(protocol.module), protocol.function)(**options))
    except (ValueError, OSError) as error:
        print(f"evaluate.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stop:
        print(f"evaluate.py: {stop or 'stopped'}", file=sys.stderr)
        return 130
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--checkpoint", type=Path, nargs="+", default=(), metavar="RUN", help="run or step folder, or an .onnx file"
    )
    parser.add_argument("--protocol", choices=tuple(PROTOCOLS), default="pairs")
    parser.add_argument("--images", type=Path, nargs="+", default=(), help="shard set, folder or .tar of images")
    parser.add_argument(
        "--embeddings", type=Path, nargs="+", default=(), metavar="FOLDER", help="of embed.py; for templates also .npy"
    )
    parser.add_argument("--pairs", default="100000", help="pairs file, or how many to sample (default: 100000)")
    parser.add_argument("--crop", default="as-trained", help="as-trained (default), none, or a central fraction")
    parser.add_argument(
        "--flip", choices=("none", "sum", "concat"), help="use of the mirrored image (default: the model's)"
    )
    parser.add_argument("--compat", choices=("insightface", "ijb-insightface"), help="that project's rules")
    parser.add_argument("--det", action="store_true", help="also draw the DET curve (both error rates, probit axes)")
    parser.add_argument("--seed", type=int, default=0, help="of sampled pairs and galleries")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, help="folder for metrics.json and pictures (default: RUN/eval)")
    absent = argparse.SUPPRESS  # each protocol has a default of its own
    parser.add_argument(
        "--targets", type=rates, default=absent, metavar="RATES", help="FMRs or FPIRs of thresholds, such as 1e-2,1e-3"
    )

    pairs = parser.add_argument_group("--protocol pairs")
    pairs.add_argument("--bin", type=Path, help="InsightFace .bin pair file")
    pairs.add_argument(
        "--against", type=Path, nargs="+", default=(), metavar="RUN", help="other models, compared on the same pairs"
    )
    pairs.add_argument("--baselines", action="store_true", help="also score the untrained network and raw pixels")
    pairs.add_argument(
        "--attributes", type=Path, metavar="FILE", help="csv (name, then attributes) of images or persons"
    )
    pairs.add_argument("--at-fmr", type=float, default=1e-2, help="false match rate of the groups' one threshold")
    pairs.add_argument("--report", type=Path, metavar="DIR", help="also write DIR/report.html, with the worst errors")

    templates = parser.add_argument_group("--protocol templates")
    templates.add_argument(
        "--templates", nargs="+", default=(), metavar="FILE", help="image, template, medium; or: folders"
    )
    templates.add_argument(
        "--template-pairs", nargs="+", default=(), type=Path, metavar="FILE", help="a file for each of those"
    )
    templates.add_argument(
        "--detector-scores", type=Path, metavar="FILE", help="name_5pts_score file: weights of the images"
    )
    templates.add_argument("--norm", choices=("keep", "remove"), default="keep", help="of embeddings, before pooling")

    searches = parser.add_argument_group("--protocol identification", "rank-r rates and TPIR at FPIR, see README.md")
    searches.add_argument("--gallery-images", type=int, default=1, help="images enrolled of each identity (default: 1)")
    searches.add_argument("--template", choices=("max", "mean"), default="max", help="of several: best score, or mean")
    searches.add_argument("--unenrolled", type=float, help="share of identities that only search (default: as needed)")
    searches.add_argument("--distractors", type=Path, metavar="FOLDER", help="gallery instead, by MegaFace's protocol")
    searches.add_argument("--index", choices=("flat", "ivf", "hnsw", "pq"), default="flat", help="flat is exact")
    searches.add_argument("--candidates", type=int, default=50, help="ranks that are counted (default: 50)")
    searches.add_argument("--rank", type=int, default=1, help="within which TPIR wants the mate (default: 1)")

    fusion = parser.add_argument_group("--protocol fusion")
    fusion.add_argument(
        "--trained-on", type=Path, nargs="+", default=(), metavar="FOLDER", help="the run's embeddings, if moved"
    )
    fusion.add_argument(
        "--set-images", type=int, metavar="K", help="compare sets of up to K images of a person, by ways to pool them"
    )

    attacks = parser.add_argument_group("--protocol liveness, full-system", "ISO/IEC 30107-3, see README.md")
    attacks.add_argument(
        "--dev", type=Path, nargs="+", default=(), metavar="SET", help="development set(s), to choose thresholds on"
    )
    attacks.add_argument(
        "--threshold-from",
        choices=("dev", "card", "test-eer"),
        help="default: dev where given, else card; test-eer flatters, and its figures are marked",
    )
    attacks.add_argument("--at", default="eer", metavar="RULE", help="eer (default), apcer=RATE or bpcer=RATE")
    attacks.add_argument("--by", nargs="+", default=(), metavar="COLUMN", help="break down by columns, such as source")
    attacks.add_argument(
        "--attack-groups", nargs="+", default=(), metavar="NAME=A,B", help="also pool attacks: 2d=print,replay 3d=mask"
    )
    attacks.add_argument(
        "--scores", type=Path, metavar="FILE", help="csv: match_score,liveness_score,kind[,attack,...]"
    )
    attacks.add_argument(
        "--at-iapar", type=float, default=0.05, help="attacks a full system may accept (default: 0.05)"
    )
    folds = parser.add_argument_group("--protocol leave-one-source-out", "goes on where it was")
    folds.add_argument("--config", type=Path, nargs="+", default=(), metavar="FILE", help="as for train.py")
    folds.add_argument(
        "--data", type=Path, nargs="+", default=(), metavar="SHARDS", help="with sources, or several, each a source"
    )
    folds.add_argument("--minutes", type=float, metavar="M", help="for all folds, about (on a CPU: 30; 0: no limit)")

    every = parser.add_argument_group("--protocol all-pairs")
    every.add_argument(
        "--precision", choices=("float32", "half"), default="float32", help="of products; counts are exact with both"
    )
    every.add_argument("--state", type=Path, metavar="FOLDER", help="keep counts there, and go on from them")
    return parser


def rates(text: str) -> tuple[float, ...]:
    """Read rates that commas part; argparse turns a ValueError into its message."""
    return tuple(float(rate) for rate in text.split(","))


if __name__ == "__main__":
    sys.exit(main())
