"""Verify shard sets: arguments in, one call of fastface.conversion.check out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.conversion.check import check

EPILOG = """\
examples:
  python tools/check_shards.py shards/me              hashes, tars, index, labels, crc32 of every image
  python tools/check_shards.py shards/me --decode     and decode every image
  python tools/check_shards.py shards/me/train shards/lfw --workers 4

exit codes: 0 all is well, 2 no shard set there, 3 something is wrong (each problem is one line on stdout)"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="check_shards.py",
        description="Verify every byte of shard sets and say what is wrong, by shard, member and offset.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("sets", type=Path, nargs="+", metavar="DIR", help="a shard set, or a folder of splits")
    parser.add_argument("--decode", action="store_true", help="decode every image as well")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: all cores)")
    options = parser.parse_args(arguments)
    try:
        wrong = [line for path in options.sets for line in check(path, decode=options.decode, workers=options.workers)]
    except ValueError as error:
        print(f"check_shards: {error}", file=sys.stderr)
        return 2
    for line in wrong:
        print(line.encode("utf-8", "backslashreplace").decode())
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
