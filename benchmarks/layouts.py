"""work/shards -> the same records in a peer's own format, written by the peer: `layouts.py NAME WORK`.

Every layout keeps the order of the shards, which make_shards shuffled. The bytes of the JPEGs are kept, except
by FFCV, which stores pixels or encodes them again.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

WORKERS = 2


def main() -> None:
    """Write one layout; its folder has its name only when it is complete."""
    name, work = sys.argv[1], Path(sys.argv[2]).resolve()
    scratch = work / f"{name}.scratch"  # whatever a writer thinks it may empty, it finds here
    partial = work / f"{name}.partial"
    for folder in (scratch, partial):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
    os.environ |= {
        "OMP_NUM_THREADS": "1",
        "TMPDIR": str(scratch),
        "DATA_OPTIMIZER_CACHE_FOLDER": str(scratch / "litdata-chunks"),  # litdata deletes both, and by default
        "DATA_OPTIMIZER_DATA_CACHE_FOLDER": str(scratch / "litdata-data"),  # they are `chunks` and `data` in TMPDIR
    }
    LAYOUTS[name](work, partial)
    partial.rename(work / name)
    shutil.rmtree(scratch)


def records(work: Path) -> Iterator[tuple[bytes, int]]:
    """Give the encoded image and the label of every record."""
    from benchmarks.pixels import Tars

    tars = Tars(work)
    for record in range(len(tars)):
        data, label = tars[record]
        yield data.tobytes(), label


def ffcv(mode: str) -> Callable[[Path, Path], None]:
    """Build a writer of FFCV's .beton with images of this mode, "raw" or "jpg"."""

    def write(work: Path, out: Path) -> None:
        import simplejpeg
        from ffcv.fields import IntField, RGBImageField
        from ffcv.writer import DatasetWriter

        from benchmarks.pixels import Tars

        class Decoded(Tars):
            def __getitem__(self, index: int) -> tuple[Any, int]:
                data, label = super().__getitem__(index)
                return simplejpeg.decode_jpeg(data), label

        fields = {"image": RGBImageField(write_mode=mode, jpeg_quality=95), "label": IntField()}
        DatasetWriter(str(out / "set.beton"), fields, num_workers=WORKERS).from_indexed_dataset(Decoded(work))

    return write


def image_file(path_and_label: tuple[str, int]) -> dict[str, Any]:
    """Return what litdata's and streaming's documentation stores: the opened image, whose bytes both keep."""
    from PIL import Image

    path, label = path_and_label
    return {"image": Image.open(path), "label": label}


def bytes_of_file(path_and_label: tuple[str, int]) -> dict[str, Any]:
    """Return the bytes of a file, which the reader will decode as it likes."""
    path, label = path_and_label
    return {"image": Path(path).read_bytes(), "label": label}


Sample = Callable[[tuple[str, int]], dict[str, Any]]


def files(work: Path, scratch: Path) -> list[tuple[str, int]]:
    """Write every record to a file of its own, for writers that want files; return paths and labels."""
    found = []
    for number, (data, label) in enumerate(records(work)):
        path = scratch / "files" / f"{number // 1000:05d}" / f"{number:09d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        found.append((str(path), label))
    return found


def litdata(sample: Sample) -> Callable[[Path, Path], None]:
    """Build a writer of litdata's chunks, of 8 MB."""

    def write(work: Path, out: Path) -> None:
        from litdata import optimize

        inputs = files(work, Path(os.environ["TMPDIR"]))
        optimize(sample, inputs, str(out), chunk_bytes="8MB", num_workers=WORKERS, start_method="fork", verbose=False)

    return write


def mosaic(sample: Sample, encoding: str) -> Callable[[Path, Path], None]:
    """Build a writer of MDS shards, of 8 MB, with images of this encoding."""

    def write(work: Path, out: Path) -> None:
        from streaming import MDSWriter

        inputs = files(work, Path(os.environ["TMPDIR"]))
        with MDSWriter(out=str(out), columns={"image": encoding, "label": "int"}, size_limit=8 << 20) as writer:
            for item in inputs:
                writer.write(sample(item))

    return write


def array_record(work: Path, out: Path) -> None:
    """Write an ArrayRecord, which grain reads at random: 4 bytes of label, then the JPEG."""
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(out / "set.array_record"), "group_size:1")  # one record a block, for random access
    for data, label in records(work):
        writer.write(struct.pack("<i", label) + data)
    writer.close()


def record_io(work: Path, out: Path) -> None:
    """Write MXNet's RecordIO and its index: magic, length, (flag, label, id, id2), JPEG, filled up to 4 bytes."""
    from fastface.data.sources.rec import MAGIC

    with open(out / "set.rec", "wb") as file, open(out / "set.idx", "w", encoding="ascii") as index:
        for number, (data, label) in enumerate(records(work)):
            content = struct.pack("<IfQQ", 0, label, number, 0) + data
            index.write(f"{number}\t{file.tell()}\n")
            file.write(struct.pack("<II", MAGIC, len(content)) + content + bytes(-len(content) % 4))


LAYOUTS: dict[str, Callable[[Path, Path], None]] = {
    "ffcv-raw": ffcv("raw"),
    "ffcv-jpg": ffcv("jpg"),
    "litdata-image": litdata(image_file),
    "litdata-bytes": litdata(bytes_of_file),
    "mds-image": mosaic(image_file, "jpeg"),
    "mds-bytes": mosaic(bytes_of_file, "bytes"),
    "array-record": array_record,
    "record-io": record_io,
}

if __name__ == "__main__":
    main()
