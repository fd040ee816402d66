"""Find the identities that look alike: arguments in, one call of fastface.miner out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.miner import mine
from fastface.mining.search import KINDS

EPILOG = """\
examples:
  python tools/mine.py --embeddings embeddings/me --out me.npz            by the mean embedding of each identity
  python tools/mine.py --checkpoint runs/me/* --out me.npz                by the class centres of task arcface
  python tools/mine.py --embeddings embeddings/me --by instance --out me.npz    by the nearest images of other people

then: accelerate launch fastface/train.py --config X.yaml configs/objectives/mined.yaml --data.plan.file me.npz
beside OUT, OUT with the ending .suspects.csv lists the pairs above --cap: probably one person, or images gone astray"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code: 0 done, 2 wrong arguments or data, 4 storage."""
    parser = argparse.ArgumentParser(
        prog="mine.py",
        description="Write the hard negatives of every identity, for data.plan: {name: mined, file: OUT}.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--embeddings", type=Path, metavar="FOLDER", help="made by tools/embed.py")
    source.add_argument("--checkpoint", type=Path, metavar="RUN", help="a run or step folder of task arcface")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.npz", help="where to write")
    parser.add_argument("--shards", type=Path, metavar="DIR", help="the shard set (default: where the run found it)")
    parser.add_argument(
        "--neighbours", type=int, default=50, metavar="N", help="of each identity (default %(default)s)"
    )
    parser.add_argument("--index", choices=KINDS, default="flat", help="flat is exact (default)")
    parser.add_argument("--probes", type=int, metavar="N", help="ivf, pq: lists looked at; hnsw: how far it looks")
    parser.add_argument(
        "--cap", type=float, default=0.7, help="above this cosine two identities are suspects (default %(default)s)"
    )
    parser.add_argument("--by", choices=("centre", "instance"), default="centre", help="what is compared")
    parser.add_argument(
        "--per-image", type=int, default=20, metavar="N", help="--by instance: others found by an image (%(default)s)"
    )
    parser.add_argument("--min-images", type=int, default=1, metavar="K", help="leave out identities with fewer images")
    parser.add_argument("--cpu", action="store_true", help="do not search on a GPU")
    options = parser.parse_args(arguments)
    try:
        report = mine(
            options.out,
            embeddings=options.embeddings,
            run=options.checkpoint,
            shards=options.shards,
            neighbours=options.neighbours,
            kind=options.index,
            probes=options.probes,
            cap=options.cap,
            by=options.by,
            per_image=options.per_image,
            min_images=options.min_images,
            gpu=False if options.cpu else None,
        )
    except ValueError as error:
        print(f"mine: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"mine: {error}", file=sys.stderr)
        return 4
    print(f"{report}\nwritten         {options.out}, {options.out.with_suffix('.suspects.csv')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
