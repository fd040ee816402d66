"""Look for what is wrong with a dataset: arguments in, one call of fastface.mining.audit out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.mining.audit import BITS, CORRELATION, audit
from fastface.mining.audit.quality import Limits
from fastface.mining.audit.scores import Thresholds

EPILOG = """\
examples:
  python tools/audit.py --embeddings embeddings/me --out audit/me
  python tools/audit.py --embeddings embeddings/train --against embeddings/test --out audit/leakage
  python tools/make_shards.py folder photos --exclude audit/me/exclude.csv --out shards/clean

OUT/audit.html shows the findings, findings.csv lists all, exclude.csv the images that are surely superfluous or wrong;
with --against, shared_identities.txt names the people that are surely in both sets (for make_shards.py --exclude, too).
OUT/measures keeps what the pixels say (288 bytes an image): the same set is not decoded again.
Embeddings are made by tools/embed.py. exit codes: 0 done, whatever was found, 2 wrong embeddings, shards or options"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="audit.py",
        description="Find copies, people under two names, wrong labels, people shared by two sets, and poor images.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--embeddings", type=Path, required=True, metavar="FOLDER", help="of the set to audit, by tools/embed.py")
    add("--shards", metavar="SET", help="its shards (default: as the embeddings say)")
    add("--against", type=Path, metavar="FOLDER", help="embeddings of another set, such as the test set")
    add("--against-shards", metavar="SET", help="its shards (default: as these embeddings say)")
    add("--out", type=Path, required=True, metavar="DIR", help="where the report goes")
    add("--no-centre", dest="centre", action="store_false", help="compare embeddings without subtracting their mean")
    add("--bits", type=int, default=BITS, help=f"of 96 by which hashes of one picture may differ (default {BITS})")
    add("--correlation", type=float, default=CORRELATION, help=f"of the detail of one picture (default {CORRELATION})")
    for name in Thresholds._fields:
        add(f"--{name}", type=float, metavar="COSINE", help=f"threshold {name!r} (default: from the data)")
    for name in Limits._fields:
        add(f"--{name}", type=float, metavar="LIMIT", help=f"limit {name!r} (default: from the data)")
    add("--shown", type=int, default=24, help="findings of each kind in the page (default 24)")
    add("--threads", type=int, help="that decode (default: as many as cores, at most 8)")
    add("--seed", type=int, default=0, help="of the pairs from which thresholds follow")
    fields = vars(parser.parse_args(arguments))
    thresholds = {name: fields.pop(name) for name in Thresholds._fields}
    limits = {name: fields.pop(name) for name in Limits._fields}
    try:
        print(audit(**fields, thresholds=thresholds, limits=limits), end="")
    except (ValueError, OSError) as error:
        print(f"audit: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
