"""A seed -> a folder of synthetic faces: DIR/id-00000/0000.jpg ... and DIR/landmarks.csv."""

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
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

# One thread a process: the arrays are small, and the workers already use every core.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image
from tqdm import tqdm

from fastface.data.synthetic import Identity, Shot, attributes, photograph, render

POINTS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
SHEET_IDENTITIES, SHEET_IMAGES = 8, 8


class Job(NamedTuple):
    """One person to draw."""

    folder: str
    seed: int
    number: int
    images: int
    size_px: int


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
    print(f"{args.identities} identities x {args.images} images of {args.size}x{args.size} px in {args.out}")


def make_faces(out: Path, args: argparse.Namespace) -> None:
    """Draw into a temporary folder beside `out`, rename it when complete."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        numbers = range(args.first, args.first + args.identities)
        jobs = [Job(str(temporary), args.seed, number, args.images, args.size) for number in numbers]
        with open(temporary / "landmarks.csv", "w", newline="", encoding="utf-8") as file:
            writer: csv.DictWriter[str] | None = None
            with tqdm(total=len(jobs) * args.images, unit="face", disable=None) as bar:
                for rows in _map(jobs, args.workers):
                    if writer is None:
                        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
                        writer.writeheader()
                    writer.writerows(rows)
                    bar.update(len(rows))
        temporary.chmod(0o755)
        if out.exists():
            out.rmdir()  # only an empty folder may be replaced; _check has looked
        temporary.rename(out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def draw_identity(job: Job) -> list[dict[str, str]]:
    """Write the pictures of one person and return their lines of landmarks.csv."""
    who = Identity.draw(job.seed, job.number)
    name = f"id-{job.number:05d}"
    folder = Path(job.folder, name)
    folder.mkdir()
    rows = []
    for image in range(job.images):
        shot = Shot.draw(job.seed, who, image)
        face = render(who, shot, job.size_px)
        (folder / f"{image:04d}.jpg").write_bytes(photograph(face, shot))
        row = {"path": f"{name}/{image:04d}.jpg"}
        row |= {key: f"{value:.2f}" for key, value in zip(("x0", "y0", "x1", "y1"), face.box.tolist(), strict=True)}
        for point, (x, y) in zip(POINTS, face.landmarks.tolist(), strict=True):
            row |= {f"{point}_x": f"{x:.2f}", f"{point}_y": f"{y:.2f}"}
        rows.append(row | attributes(who, shot))
    return rows


def _map(jobs: list[Job], workers: int) -> Iterator[list[dict[str, str]]]:
    if workers <= 1 or len(jobs) == 1:
        yield from map(draw_identity, jobs)
        return
    method = "fork" if "fork" in multiprocessing.get_all_start_methods() else None
    with multiprocessing.get_context(method).Pool(min(workers, len(jobs))) as pool:
        yield from pool.imap(draw_identity, jobs, chunksize=1)


def _check(args: argparse.Namespace, out: Path) -> None:
    for name in ("identities", "images", "workers"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name} {getattr(args, name)} must be at least 1")
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise ValueError(f"--out {args.out} exists and is not an empty folder; choose another or remove it")
    # Draw one picture now, so that a bad seed, number or size is told before any folder appears.
    who = Identity.draw(args.seed, args.first + args.identities - 1)
    render(who, Shot.draw(args.seed, who, args.images - 1), args.size)


def _sheet(out: Path, args: argparse.Namespace) -> None:
    identities, images = min(args.identities, SHEET_IDENTITIES), min(args.images, SHEET_IMAGES)
    sheet = Image.new("RGB", (images * args.size, identities * args.size))
    for row, column in itertools.product(range(identities), range(images)):
        path = out / f"id-{args.first + row:05d}" / f"{column:04d}.jpg"
        sheet.paste(Image.open(io.BytesIO(path.read_bytes())), (column * args.size, row * args.size))
    args.sheet.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(args.sheet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to make; must not exist or be empty")
    parser.add_argument("--identities", type=int, default=360, help="number of people (default %(default)s)")
    parser.add_argument("--images", type=int, default=20, help="pictures of each (default %(default)s)")
    parser.add_argument("--size", type=int, default=64, help="side of a picture in px (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the population (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="number of the first person (default %(default)s)")
    parser.add_argument("--sheet", type=Path, help=f"also write a contact sheet of {SHEET_IDENTITIES} x {SHEET_IMAGES}")
    parser.add_argument("--workers", type=int, default=_cores(), help="processes (default: all cores)")
    return parser


def _cores() -> int:
    with contextlib.suppress(AttributeError):  # macOS has no affinity
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


if __name__ == "__main__":
    main()
