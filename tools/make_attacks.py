"""Make prints, screens, cuts and masks of photographs: arguments in, one call of fastface out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.data.synthetic.attacks.files import attack_files
from fastface.data.synthetic.attacks.present import VARIANTS

EPILOG = """\
examples:
  python tools/make_attacks.py photo.jpg --attack print,replay --out attacks
  python tools/make_attacks.py photos --attack live,print-laser,replay-phone --out antispoof
  python tools/make_attacks.py aligned --attack cut,mask --aligned --out worn

OUT/spoof/ATTACK/NAME.png is what a camera sees of the photograph printed or shown; `live` writes OUT/live/NAME.png,
the photograph itself taken by the same camera. make_shards.py liveness reads OUT.

exit codes: 0 done, 2 wrong options or pictures, 3 some pictures cannot be read (a line each), 4 storage"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="make_attacks.py",
        description="Photographs of faces -> pictures of presentation attacks with them.",
        epilog=f"attacks: live, print, replay, cut, mask, or one of {', '.join(VARIANTS)}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("input", type=Path, metavar="PHOTO", help="a picture, a folder of pictures or a .tar")
    parser.add_argument("--attack", required=True, metavar="NAMES", help="attacks, with commas between")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--seed", type=int, default=0, help="how they are printed, shown and photographed")
    parser.add_argument("--aligned", action="store_true", help="faces lie on the ArcFace template: for cut and mask")
    options = parser.parse_args(arguments)
    try:
        count, bad = attack_files(options.input, options.out, options.attack, options.seed, aligned=options.aligned)
    except (ValueError, OSError) as error:
        print(f"make_attacks: {error}", file=sys.stderr)
        return 4 if isinstance(error, OSError) else 2
    for line in bad:
        print(line.encode("utf-8", "backslashreplace").decode(), file=sys.stderr)
    print(f"{count:,} pictures in {options.out}")
    return 3 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
