"""Enrol people in a gallery, or remove them: arguments in, one call of fastface.enrolment out."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.arguments import Several, parse_with_last
from fastface.mining.search import KINDS

EPILOG = """\
examples:
  python tools/enrol.py --recognition MODEL --detector yunet:FILE --out gallery/staff PEOPLE     PEOPLE/name/image.jpg
  python tools/enrol.py --out gallery/staff NEWCOMERS                                            more people
  python tools/enrol.py --out gallery/staff --remove "Ann Onymous"

then: python tools/identify.py --gallery gallery/staff PHOTO
exit codes: 0 done, 2 wrong model, folder or gallery, 4 storage"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    parser = argparse.ArgumentParser(
        prog="enrol.py",
        description="Make a gallery of people from their photographs, or change one.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("folder", type=Path, nargs="*", metavar="PEOPLE", help="a folder or .tar of PERSON/IMAGE.jpg")
    add("--out", type=Path, required=True, metavar="GALLERY", help="the gallery; where it is there, people are added")
    several = {"type": Path, "nargs": "+", "action": Several, "metavar": "FILE", "default": []}
    add("--recognition", **several, help="run or step folder, or .onnx file; a gallery remembers it")
    add("--fusion", type=Path, metavar="FILE", help="makes one embedding of several --recognition: of task fusion")
    add("--detector", metavar="NAME:FILE", help="find the faces: yunet:FILE, mtcnn:DIR or ssd:PROTOTXT,CAFFEMODEL")
    add("--align", help="how faces are cut for models whose cards do not say: five-point, crop, pad, none (not at all)")
    add("--pick", choices=("largest", "centre"), default="largest", help="which of several faces (default: largest)")
    add("--index", choices=KINDS, help="flat is exact (default); ivf, hnsw, pq for millions: built once and kept")
    add("--remove", nargs="+", action=Several, default=[], metavar="PERSON", help="take people out, by name")
    add("--device", default="cpu", help="cpu (default) or cuda, for run and step folders")
    options = parse_with_last(parser, "folder", 1, arguments, unless="remove")
    from fastface.enrolment import enrol

    try:
        folder = next(iter(options.pop("folder")), None)
        print(enrol(options.pop("out"), folder, **options))
    except (ValueError, OSError) as error:
        print(f"enrol.py: {error}", file=sys.stderr)
        return 4 if isinstance(error, OSError) else 2
    except KeyboardInterrupt:
        print("enrol.py: stopped; the gallery is as it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
