"""A seed -> a folder of synthetic faces: DIR/id-00000/0000.jpg ... and DIR/landmarks.csv, or live and attacked ones."""

import argparse
import contextlib
import csv
import io
import itertools
import multiprocessing
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

# One thread a process: the arrays are small, and the workers already use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image
from tqdm import tqdm

from fastface.data.synthetic import Identity, Shot, attributes, photograph, render
from fastface.data.synthetic.attacks.album import clips_of, draw_attacks, draw_clips, variants_of
from fastface.data.synthetic.attacks.clips import CLIPS
from fastface.data.synthetic.attacks.present import VARIANTS

Drawn = TypeVar("Drawn")
POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
SHEET_IDENTITIES, SHEET_IMAGES = 8, 8


class Job(NamedTuple):
    """One person to draw."""

    folder: str
    number: int
    args: argparse.Namespace


def main(arguments: list[str] | None = None) -> None:
    """Draw what the command line asks for."""
    args = _parser().parse_args(arguments)
    out = args.out.resolve()
    try:
        _check(args, out)
        make_faces(out, args)
    except (ValueError, OSError) as error:
        sys.exit(f"make_faces: {error}")
    if args.sheet:
        _sheet(out, args)
    print(f"{args.identities} identities, {_num_images(args):,} images of {args.size}x{args.size} px, in {args.out}")


def make_faces(out: Path, args: argparse.Namespace) -> None:
    """Draw into a temporary folder beside `out`, rename it when complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        numbers = range(args.first, args.first + args.identities)
        jobs = [Job(str(temporary), number, args) for number in numbers]
        with tqdm(total=_num_images(args), unit="image", disable=None) as bar:
            if args.attacks or args.clips:
                for count in _map(draw_presented, jobs, args.workers):
                    bar.update(count)
            else:
                _draw_people(temporary, jobs, args.workers, bar)
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()  # only an empty folder may be replaced; _check has looked
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _draw_people(folder: Path, jobs: list[Job], workers: int, bar: tqdm) -> None:
    with open(folder / "landmarks.csv", "w", newline="", encoding="utf-8") as file:
        writer: csv.DictWriter[str] | None = None
        for rows in _map(draw_identity, jobs, workers):
            if writer is None:
                writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
                writer.writeheader()
            writer.writerows(rows)
            bar.update(len(rows))


def draw_presented(job: Job) -> int:
    """Write the live and the attacked pictures, or clips, of one person and count them."""
    args, count = job.args, 0
    common = (args.seed, job.number, args.images, args.size)
    if args.clips:
        pictures = draw_clips(*common, clips_of(args.clips), args.sites, args.frames, args.fps)
    else:
        pictures = draw_attacks(*common, variants_of(args.attacks), args.sites)
    for path, image in pictures:
        file = Path(job.folder, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(file)
        count += 1
    return count


def draw_identity(job: Job) -> list[dict[str, str]]:
    """Write the pictures of one person and return their lines of landmarks.csv."""
    args = job.args
    who = Identity.draw(args.seed, job.number)
    name = f"id-{job.number:05d}"
    folder = Path(job.folder, name)
    folder.mkdir()
    rows = []
    for image in range(args.images):
        shot = Shot.draw(args.seed, who, image)
        face = render(who, shot, args.size)
        (folder / f"{image:04d}.jpg").write_bytes(photograph(face, shot))
        row = {"path": f"{name}/{image:04d}.jpg"}
        row |= {key: f"{value:.2f}" for key, value in zip(("x0", "y0", "x1", "y1"), face.box.tolist(), strict=True)}
        for point, (x, y) in zip(POINTS, face.landmarks.tolist(), strict=True):
            row |= {f"{point}_x": f"{x:.2f}", f"{point}_y": f"{y:.2f}"}
        rows.append(row | attributes(who, shot))
    return rows


def _map(draw: Callable[[Job], Drawn], jobs: list[Job], workers: int) -> Iterator[Drawn]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(draw, jobs)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    with multiprocessing.get_context(method).Pool(min(workers, len(jobs))) as pool:
        yield from pool.imap(draw, jobs, chunksize=1)


def _check(args: argparse.Namespace, out: Path) -> None:
    for name in ("identities", "images", "sites", "frames", "fps", "workers"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)} must be at least 1")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out {args.out} exists and is not an empty folder; choose another or remove it")
    if args.attacks and args.clips:
        raise ValueError("--attacks and --clips are two sets; make one after the other")
    variants_of(args.attacks or "print")
    clips_of(args.clips or "still")
    # Draw one picture now, so that a bad seed, number or size is told before any folder appears.
    who = Identity.draw(args.seed, args.first + args.identities - 1)
    render(who, Shot.draw(args.seed, who, args.images - 1), args.size)


def _sheet(out: Path, args: argparse.Namespace) -> None:
    identities, images = min(args.identities, SHEET_IDENTITIES), min(args.images, SHEET_IMAGES)
    if args.attacks or args.clips:
        _sheet_of_attacks(out, args)
        return
    sheet = Image.new("RGB", (images * args.size, identities * args.size))
    for row, column in itertools.product(range(identities), range(images)):
        path = out / f"id-{args.first + row:05d}" / f"{column:04d}.jpg"
        sheet.paste(Image.open(io.BytesIO(path.read_bytes())), (column * args.size, row * args.size))
    _save(sheet, args.sheet)


def _sheet_of_attacks(out: Path, args: argparse.Namespace) -> None:
    """Draw a row of live pictures, then one of each attack: of different people, or the frames of one clip."""
    folders = ["", *sorted({path.name for path in out.glob("*/spoof/*")})]
    sheet = Image.new("RGB", (SHEET_IMAGES * args.size, len(folders) * args.size))
    for row, folder in enumerate(folders):
        paths = sorted(out.glob(f"*/spoof/{folder}/*/**/*.png" if folder else "*/live/**/*.png"))
        if not args.clips:
            paths.sort(key=lambda path: (path.name[-6:], path.parent.name))  # by image, then by person
        for column, path in enumerate(paths[:SHEET_IMAGES]):
            sheet.paste(Image.open(path), (column * args.size, row * args.size))
    _save(sheet, args.sheet)


def _num_images(args: argparse.Namespace) -> int:
    """Count what is drawn: of each person as many of each attack as live ones."""
    kinds = 1 + len(clips_of(args.clips) if args.clips else variants_of(args.attacks) if args.attacks else ())
    return args.identities * args.images * kinds * (args.frames if args.clips else 1)


def _save(sheet: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist or be empty")
    parser.add_argument("--identities", type=int, default=360, help="number of people (default %(default)s)")
    parser.add_argument("--images", type=int, default=20, help="pictures of each (default %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of a picture in px (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the population (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first person (default %(default)s)")
    parser.add_argument(
        "--attacks",
        metavar="NAMES",
        help="draw SITE/live and SITE/spoof for make_shards.py liveness, as many of each attack as live ones: print, "
        f"replay, cut, mask, or one variant such as print-laser ({', '.join(VARIANTS)}), with commas between",
    )
    parser.add_argument(
        "--clips",
        metavar="NAMES",
        help=f"the same with clips, --images of each, for make_shards.py liveness --fps: {', '.join(CLIPS[1:])}",
    )
    parser.add_argument("--sites", type=int, default=3, help="places with devices of their own (default %(default)s)")
    parser.add_argument("--frames", type=int, default=18, help="--clips: frames of each (default %(default)s)")
    parser.add_argument("--fps", type=float, default=12.0, help="--clips: frames a second (default %(default)s)")
    parser.add_argument("--sheet", type=Path, help=f"also write a contact sheet of {SHEET_IDENTITIES} x {SHEET_IMAGES}")
    parser.add_argument("--workers", type=int, default=_cores(), help="processes (default: all cores)")
    return parser


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # macOS has no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
