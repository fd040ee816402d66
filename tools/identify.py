"""Say whom photographs show: arguments in, one call of fastface.identifier out."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

EPILOG = """\
examples:
  python tools/identify.py --gallery gallery/staff photo.jpg
  python tools/identify.py --gallery gallery/staff --liveness LIVENESS_MODEL photo.jpg
  python tools/identify.py --gallery gallery/staff --csv found.csv FOLDER

Model and detector are those that the gallery was made with. Nobody is found below the threshold: that at which --fpir
of searches for people who are not enrolled find somebody, counted in this gallery with its own images.

exit codes: 0 every photograph shows somebody who is enrolled, 1 not every one does, 2 wrong gallery, model, options"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="identify.py",
        description="Search a gallery of people for those in photographs.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("photos", type=Path, nargs="+", metavar="PHOTO", help="photographs, and folders of them")
    add("--gallery", type=Path, required=True, help="made by tools/enrol.py")
    several = {"type": Path, "action": "append", "default": [], "metavar": "FILE"}
    add("--recognition", **several, help="the gallery's model, where it lies elsewhere now; again for several")
    add("--fusion", type=Path, metavar="FILE", help="the gallery's, where it lies elsewhere now")
    add("--detector", metavar="NAME:FILE", help="the gallery's, where it lies elsewhere now")
    add("--liveness", **several, help="a photograph must show a living person by this model; again for several")
    add("--liveness-rule", metavar="RULE", help="which threshold of their cards (default: the first)")
    add("--liveness-threshold", type=float, metavar="P", help="smallest probability of live (default: their cards')")
    add("--liveness-align", help="how faces are cut for liveness models whose cards do not say")
    add("--fpir", type=float, default=1e-2, metavar="RATE", help="false alarms that are allowed (default: %(default)s)")
    add("--threshold", type=float, metavar="SCORE", help="find people from this score on, instead of --fpir")
    add("--candidates", type=int, default=5, dest="count", metavar="N", help="people that are told (%(default)s)")
    add("--csv", type=Path, dest="out", metavar="FILE", help="write a line for each photograph")
    add("--json", action="store_true", help="print everything as JSON")
    add("--device", default="cpu", help="cpu (default) or cuda, for run and step folders")
    options = vars(parser.parse_args(arguments))
    as_json = options.pop("json")
    from fastface.identifier import identify

    try:
        found, report = identify(options.pop("gallery"), options.pop("photos"), **options)
    except (ValueError, OSError) as error:
        print(f"identify.py: {error}", file=sys.stderr)
        return 2
    print(json.dumps([each.as_dict() for each in found], indent=1) if as_json else report)
    return 0 if all(each.person is not None for each in found) else 1


if __name__ == "__main__":
    sys.exit(main())
