"""Make tar shards of a raw dataset: arguments in, one call of fastface.conversion.convert out."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from fastface.conversion.convert import convert
from fastface.conversion.faces import CONTEXT, NO_FACE, PICKS, Alignment
from fastface.conversion.options import Options
from fastface.conversion.order import parse_split
from fastface.data.align import ALIGNMENTS, MARGIN
from fastface.data.context import Context
from fastface.data.images import ImageSpec
from fastface.data.sources import SPLIT_BY
from fastface.data.sources.kinds import KINDS
from fastface.data.sources.liveness_layouts import LAYOUTS
from fastface.detection import DETECTORS, DetectorSpec

EPILOG = """\
examples:
  a folder with one sub-folder per person, cropped to the face, 10 % of the people held out
    python tools/make_shards.py folder photos --out shards/me --size 112 --crop 0.45 --split train=0.9,val=0.1
  photographs with the face anywhere: found by MTCNN's public weights, turned upright onto the ArcFace template
    python tools/make_shards.py folder photos --out shards/me --size 112 --detector mtcnn:weights --align five-point
  InsightFace RecordIO and pair files, bytes untouched
    python tools/make_shards.py rec ms1mv3/train.rec --out shards/ms1mv3
    python tools/make_shards.py bin ms1mv3/lfw.bin --out shards/lfw
  WIDER FACE with its boxes; live and spoof images as PNG; five frames a second of videos
    python tools/make_shards.py widerface WIDER_train --out shards/wider
    python tools/make_shards.py liveness antispoof --out shards/liveness
    python tools/make_shards.py liveness OULU-NPU --out shards/oulu --fps 5 --crop box --context 2.7 --size 80
    python tools/make_shards.py video clips --fps 5 --size 112 --out shards/clips
  a csv of path,label,x0,y0,x1,y1 in two processes (or on two machines that share the disk), then put together
    python tools/make_shards.py list faces.csv --out shards/faces --size 112 --crop box --part 0/2
    python tools/make_shards.py list faces.csv --out shards/faces --size 112 --crop box --part 1/2
    python tools/make_shards.py list faces.csv --out shards/faces --size 112 --crop box --join

Every image is decoded once; what cannot be is left out and listed in OUT/rejects.csv. OUT appears only when
it is complete. Interrupted, the same command goes on where it stopped. The format: shards/README.md.
exit codes: 0 done, 2 wrong options, 3 unusable data, 4 disk full, locked or not writable, 130 interrupted"""


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    options = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite kill stops as Ctrl-C does
    try:
        print(convert(Options(**options)))
    except ValueError as error:
        print(f"make_shards: {error}", file=sys.stderr)
        return getattr(error, "exit_code", 2)
    except KeyboardInterrupt as stop:
        print(f"make_shards: {stop or 'stopped; the same command goes on from here'}", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> dict:
    """Turn the command line into the fields of Options."""
    parser = argparse.ArgumentParser(
        prog="make_shards.py",
        description="Make tar shards, an index and a list of what was refused from a raw dataset of faces.",
        epilog=f"kinds:\n{_lines(KINDS)}\nlayouts of liveness:\n{_lines(LAYOUTS)}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("kind", choices=list(KINDS), metavar="KIND", help="layout of INPUT, see below")
    add("input", type=Path, metavar="INPUT", help="the raw dataset: a directory or a file, by KIND")
    add("--out", type=Path, required=True, metavar="DIR", help="folder to make, such as shards/NAME")
    add(
        "--root",
        type=Path,
        metavar="DIR",
        help="list: where its paths start (default: the folder of the csv)",
    )
    add(
        "--annotations",
        type=Path,
        metavar="FILE",
        help="widerface: its wider_face_*_bbx_gt.txt (default: the one beside INPUT)",
    )
    add(
        "--fps",
        type=float,
        metavar="F",
        help="video, liveness: frames a second to take (default: all); needed for folders of frames",
    )
    add(
        "--layout",
        metavar="NAME",
        help=f"liveness: tree, {', '.join(LAYOUTS)} (default: the one whose files are there, which is said)",
    )
    add("--protocol", metavar="1..4.6", help="liveness, OULU-NPU: the videos of protocol 1, 2, 3.1 ... or 4.1 ... only")
    image = parser.add_argument_group("images (without these, images that fit keep their bytes)")
    add = image.add_argument
    add("--size", type=_size, metavar="112 or WxH", help="resize to this width and height in px")
    add(
        "--crop",
        type=_crop,
        metavar="FRACTION or box",
        help="cut out the central fraction, or the box that INPUT gives of a face (or, with --context, a detector)",
    )
    add(
        "--context",
        type=float,
        metavar="S",
        help="with --crop box: cut out a square of S times the box, moved into the image (liveness: 1, 2.7 or 4); "
        "without --size its pixels are kept as they are",
    )
    add("--stretch", action="store_true", help="with --context: S times the box, stretched to --size (as MiniFASNet)")
    add("--quality", type=int, metavar="1..100", help="encode every image anew at this JPEG quality")
    add("--lossless", action=argparse.BooleanOptionalAction, help="store PNG (liveness: unless --quality is given)")
    face = parser.add_argument_group(
        "faces (found in each image, or given by INPUT; the index then has box, landmarks and detection_score)"
    )
    add = face.add_argument
    add("--align", choices=ALIGNMENTS, help="; ".join(f"{name}: {what}" for name, what in ALIGNMENTS.items()))
    kinds = " or ".join(f"{name}:{','.join(kind.files)}" for name, kind in DETECTORS.items())
    add("--detector", type=_detector, metavar="NAME:FILE", help=f"{kinds}; what it finds is kept in OUT/../detections")
    add("--detect-min", type=float, metavar="SCORE", help="smallest score of a face (0.5; mtcnn: 0.7)")
    add("--pick", choices=PICKS, default="largest", help="which of several faces (%(default)s)")
    add("--no-face", choices=NO_FACE, help="what becomes of an image without one (whole; with --context: reject)")
    add("--margin", type=float, default=MARGIN, metavar="F", help="enlarges boxes by this part of a side (%(default)s)")
    add("--steady", action="store_true", help="one place for all frames of a clip, the median of where its faces are")
    choice = parser.add_argument_group("which images, in which order")
    add = choice.add_argument
    add("--include", type=Path, metavar="FILE", help="only the classes named in FILE, one a line")
    add(
        "--exclude",
        type=Path,
        metavar="FILE",
        help="all but the classes named in FILE, or the images of audit.py's csv",
    )
    add("--min-images", type=int, default=1, metavar="N", help="leave out identities with fewer images (%(default)s)")
    add("--split", type=_split, metavar="NAME=F,...", help="make several sets, such as train=0.9,val=0.1")
    add("--split-by", choices=SPLIT_BY, default="identity", help="what is divided (%(default)s)")
    add(
        "--leakage",
        choices=["refuse", "allow"],
        default="refuse",
        help="live and spoof images: persons, or copies of an image, in two splits (%(default)s)",
    )
    add("--seed", type=int, default=0, metavar="N", help="of order and split (%(default)s)")
    add("--no-shuffle", dest="shuffle", action="store_false", help="keep the order of INPUT")
    add(
        "--max-rejects",
        type=float,
        default=1.0,
        metavar="F",
        help="fail if a larger fraction is rejected (1)",
    )
    work = parser.add_argument_group("work (none of these but --shard-size changes a byte)")
    add = work.add_argument
    add("--shard-size", type=int, metavar="N", help="images per shard (default: a 64th, 256 to 10,000)")
    add("--workers", type=int, metavar="N", help="processes (default: all cores)")
    add("--part", type=_part, metavar="K/N", help="make every N-th shard from K = 0 on; then --join")
    add("--join", action="store_true", help="put together what the parts made")
    fields = vars(parser.parse_args(arguments))
    crop, size, quality, lossless = (fields.pop(name) for name in ("crop", "size", "quality", "lossless"))
    if lossless is None:
        lossless = KINDS[fields["kind"]].lossless and quality is None
    context, stretch, steady = (fields.pop(name) for name in ("context", "stretch", "steady"))
    method, detector, least, pick, no_face, margin = (
        fields.pop(name) for name in ("align", "detector", "detect_min", "pick", "no_face", "margin")
    )
    try:
        if context is not None:
            if crop != "box" or method is not None:
                raise ValueError("--context enlarges the box of --crop box: give both, and no --align")
            crop, method = None, CONTEXT
        elif stretch:
            raise ValueError("--stretch is for --crop box --context S: add these, or leave it out")
        if detector is not None and method is None:
            raise ValueError("--detector finds faces: add --align crop, pad or five-point, or --crop box --context 2.7")
        if steady and method is None:
            raise ValueError("--steady is for faces that are cut out: add --align, or --crop box --context 2.7")
        if method is None:
            fields["align"] = None
        else:
            around = None if context is None else Context(context, stretch)
            no_face = no_face or ("whole" if around is None else "reject")
            fields["align"] = Alignment(method, detector, least, pick, no_face, margin, around, steady)
        fields["spec"] = ImageSpec(size, None if crop == "box" else crop, quality, lossless)
        fields["boxes"] = crop == "box"
        Options(**fields)
    except ValueError as error:
        parser.error(str(error))
    return fields


def _lines(table: Mapping[str, Any]) -> str:
    return "\n".join(f"  {name:<14}{entry.help}" for name, entry in table.items())


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    if not width.isdecimal() or not (height or width).isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a side such as 112 nor WIDTHxHEIGHT such as 96x112")
    return int(width), int(height or width)


def _crop(text: str) -> float | str:
    try:
        return "box" if text == "box" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a fraction such as 0.45 nor the word box") from None


def _detector(text: str) -> DetectorSpec:
    try:
        return DetectorSpec.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _split(text: str) -> dict[str, float]:
    try:
        return parse_split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not part.isdecimal() or not parts.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not K/N, such as 0/4")
    return int(part), int(parts)


if __name__ == "__main__":
    sys.exit(main())
