"""A configuration, or shards and a preset -> a contact sheet of what the network sees."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone need not be installed

from PIL import Image, ImageDraw, ImageFont

from fastface.command import load_config
from fastface.config import DataConfig
from fastface.data.augment import Augment, Draws
from fastface.data.augment.presets import OPERATORS, known, operators
from fastface.data.damage import BadImage
from fastface.data.decode import build_decoder
from fastface.data.index import Index
from fastface.data.plan import Slots, slot_keys
from fastface.data.plans import Shuffled
from fastface.data.shards import ShardReader

EPILOG = """\
examples:
  what a run will train on
    python tools/show_batch.py --config configs/demo.yaml --out sheet.png
  one preset, on some shards
    python tools/show_batch.py --shards shards/lfw --augment liveness_aggressive
  one operator, on every image
    python tools/show_batch.py --shards shards/lfw --augment motion_blur

The first column is the image as it is stored; the others are the same image under other random keys, with
data.scales each of a step's size. Captions name the operators that were drawn."""
SPACE, LINE = 4, 11  # px


class Sheet(NamedTuple):
    """Columns of images of the same records; captions[row][column] are lines of text."""

    images: list[np.ndarray]  # uint8 [R, H, W, 3] each, of one size or, with data.scales, of several
    captions: list[list[list[str]]]


def main(arguments: list[str] | None = None) -> int:
    """Run the tool and return its exit code."""
    options = parse(arguments)
    try:
        data, seed = settings(options)
        sheet = make_sheet(data, seed, options.rows, options.columns)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        picture_of(sheet, options.zoom).save(options.out)
    except (ValueError, OSError) as error:
        print(f"show_batch: {error}", file=sys.stderr)
        return 2
    print(f"{options.out.resolve()}: {len(sheet.captions)} images, as stored and under {options.columns} keys")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="show_batch.py",
        description="Write a PNG of what the network sees.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--config", nargs="+", type=Path, metavar="FILE", help="YAML files, merged left to right, as for train.py")
    add("--shards", type=Path, metavar="DIR", help="a shard set, in place of the configuration's")
    add("--augment", metavar="NAME", help="a preset, or one operator for every image")
    add("--decoder", choices=("torch", "dali-cpu", "dali-gpu"), default="torch", help="who makes the pixels")
    add("--rows", type=int, default=8, metavar="N", help="images (default 8)")
    add("--columns", type=int, default=10, metavar="N", help="keys for each (default 10)")
    add("--seed", type=int, metavar="N", help="of images and keys; default that of the configuration, or 0")
    add("--zoom", type=int, default=1, metavar="N", help="enlarge every pixel N times")
    add("--out", type=Path, default=Path("batch.png"), metavar="FILE", help="the PNG (default batch.png)")
    options = parser.parse_args(arguments)
    if not options.config and not options.shards:
        parser.error("give --config, or --shards")
    if min(options.rows, options.columns, options.zoom) < 1:
        parser.error("--rows, --columns and --zoom are at least 1")
    return options


def settings(options: argparse.Namespace) -> tuple[DataConfig, int]:
    """Return section `data` with what the command line changed (decoder included), and the seed."""
    config = load_config(*(options.config or ()))
    changed: dict[str, Any] = {"decoder": options.decoder}
    if options.augment in OPERATORS:
        changed["augment"] = (OPERATORS[options.augment](p=1.0),)  # type: ignore[call-arg]
    elif options.augment:
        changed["augment"] = known(options.augment)
    if options.shards:
        changed["shards"] = options.shards
    elif config.data.sources:
        changed["shards"] = config.data.sources[0].shards  # one of them shows what is done to all
    data = config.data.model_copy(update=changed)
    if data.shards is None:
        raise ValueError("data.shards is not set: give --shards DIR, made by tools/make_shards.py")
    if not options.config:
        data = data.model_copy(update={"size": Index.open(data.shards).image_size or data.size})
    return data, config.seed if options.seed is None else options.seed


def make_sheet(data: DataConfig, seed: int, rows: int, columns: int) -> Sheet:
    """Decode `rows` records as they are, and under `columns` keys each."""
    assert data.shards is not None
    index = Index.open(data.shards)
    records = Shuffled(len(index), min(rows, len(index)), seed)[0].records
    keys = slot_keys(seed, 0, len(records) * columns)
    blobs = ShardReader(index, check_crc=data.check_crc).views(records)
    augment = Augment(data.flip, operators(data.augment), data.scales, seed)
    device = "cuda" if data.decoder == "dali-gpu" else "cpu"
    decoder = build_decoder(data.decoder, size=data.size, resize=data.resize, threads=1, device=device, mean=0, std=1)
    images, captions = [], [[[index.name(int(record)).split("/")[-1]]] for record in records]
    draws = Draws(np.zeros(len(records), bool))
    for column in range(columns + 1):
        width, height = (augment.size(column - 1) if column else None) or data.size
        out = torch.empty((len(records), 3, height, width), device=device)
        if column:
            draws = augment.draw(Slots(0, 0, records, keys[column - 1 :: columns]))
            for row, lines in enumerate(captions):
                lines.append(drawn_names(draws, row))
        try:
            decoder(blobs, draws, out)
        except BadImage as error:
            name = index.name(int(records[error.row]))
            raise ValueError(f"{index.path}, record {records[error.row]}, {name!r}: {error.reason}") from None
        images.append(out.cpu().numpy().transpose(0, 2, 3, 1).astype(np.uint8))
    decoder.close()
    return Sheet(images, captions)


def drawn_names(draws: Draws, row: int) -> list[str]:
    """Name what was drawn for a row."""
    names = [drawn.operator.name for drawn in draws.operators if drawn.chosen[row]]
    return [*names, "flip"] if draws.flip[row] else names


def picture_of(sheet: Sheet, zoom: int) -> Image.Image:
    """Lay images out in a table, each with its caption below."""
    rows, columns = len(sheet.captions), len(sheet.images)
    height, width = (max(images.shape[axis] for images in sheet.images) * zoom for axis in (1, 2))
    lines = [max(len(caption) for caption in row) for row in sheet.captions]
    tops = np.cumsum([SPACE, *(height + LINE * count + SPACE for count in lines)]).tolist()
    picture = Image.new("RGB", (SPACE + columns * (width + SPACE), tops[-1]), "white")
    pen = ImageDraw.Draw(picture)
    for row in range(rows):
        for column in range(columns):
            place = SPACE + column * (width + SPACE), tops[row]
            image = Image.fromarray(sheet.images[column][row])
            size = image.width * zoom, image.height * zoom
            picture.paste(image.resize(size, Image.Resampling.NEAREST), place)
            text = "\n".join(short(line, width) for line in sheet.captions[row][column])
            pen.multiline_text((place[0], place[1] + height), text, "black", ImageFont.load_default(9), spacing=1)
    return picture


def short(line: str, width: int) -> str:
    """Cut a line of text to what fits into `width` px."""
    letters = max(4, width // 5)
    return line if len(line) <= letters else line[: letters - 1] + "~"


if __name__ == "__main__":
    sys.exit(main())
