"""Verify shard sets: arguments in, one call of fastface.conversion.check out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.conversion.check import check, sets_in
from fastface.conversion.duplicates import find_duplicates, write_duplicates
from fastface.conversion.repair import repair
from fastface.data.index import Index

EPILOG = """\
examples:
  python tools/check_shards.py shards/me              hashes, tars, index, labels, crc32 of every image
  python tools/check_shards.py shards/me --decode     and decode every image
  python tools/check_shards.py shards/me/train shards/lfw --workers 4
  python tools/check_shards.py shards/me/train shards/lfw --duplicates same.csv    which images are the same, instead
  python tools/check_shards.py shards/me --repair --out shards/me2                 a new set of what is good

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
    parser.add_argument("--duplicates", type=Path, metavar="CSV", help="list identical images of all sets in CSV")
    parser.add_argument("--repair", action="store_true", help="write what is good of DIR to a new set, --out")
    parser.add_argument("--out", type=Path, metavar="NEW", help="where --repair writes")
    options = parser.parse_args(arguments)
    if options.repair != (options.out is not None) or (options.repair and len(options.sets) > 1):
        parser.error("--repair takes one DIR and --out NEW")
    try:
        if options.repair:
            report, lost = repair(options.sets[0], options.out, workers=options.workers)
            print(f"{report}\n{len(lost):,} lines of what is lost in {options.out / 'lost.csv'}")
            return 0
        if options.duplicates is not None:
            opened = {str(path): Index.open(path) for each in options.sets for path in sets_in(each)}
            found = find_duplicates(list(opened.values()))
            write_duplicates(options.duplicates, opened, found)
            print(f"{found}: {options.duplicates}")
            return 0
        wrong = [line for path in options.sets for line in check(path, decode=options.decode, workers=options.workers)]
    except ValueError as error:
        print(f"check_shards: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    for line in wrong:
        print(line.encode("utf-8", "backslashreplace").decode())
    return 3 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
