"""A folder -> files that must be refused, each with its reason, and odd files that must be read."""

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def photo(width: int = 112, height: int = 112) -> np.ndarray:
    """Draw a smooth uint8 [height, width, 3] picture without any symmetry."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 40 + 180 * x / width
    green = 30 + 190 * (y / height) ** 2
    blue = 128 + 100 * np.sin(x / 9) * np.cos(y / 13)
    return np.stack([red, green, blue], axis=-1).round().astype(np.uint8)


def encode(image: np.ndarray | Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    """Encode with Pillow."""
    buffer = io.BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def exif(orientation: int, order: str = "<") -> bytes:
    """Write a TIFF block that says nothing but the orientation."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def with_exif(jpeg: bytes, orientation: int, order: str = "<") -> bytes:
    """Insert an EXIF segment behind the first two bytes of a JPEG."""
    block = b"Exif\0\0" + exif(orientation, order)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + jpeg[2:]


def patch_frame(jpeg: bytes, **fields: int) -> bytes:
    """Overwrite marker, precision, height or width in the frame header of a baseline JPEG."""
    at = jpeg.index(b"\xff\xc0")
    out = bytearray(jpeg)
    for name, value in fields.items():
        offset, form = {"marker": (1, ">B"), "precision": (4, ">B"), "height": (5, ">H"), "width": (7, ">H")}[name]
        struct.pack_into(form, out, at + offset, value)
    return bytes(out)


def sampled_jpeg(factors: tuple[int, int, int], width: int = 32, height: int = 32) -> bytes:
    """Write a mid-grey JPEG with any sampling factors (0xHV per component), bit by bit.

    Every block is "DC difference 0, end of block": 00 1010 in the standard luma tables, 00 00 in the chroma
    ones.
    """
    across, down = max(f >> 4 for f in factors), max(f & 15 for f in factors)
    num_units = -(-width // (8 * across)) * -(-height // (8 * down))
    unit = "".join(("001010" if k == 0 else "0000") * ((f >> 4) * (f & 15)) for k, f in enumerate(factors))
    bits = unit * num_units
    bits += "1" * (-len(bits) % 8)
    scan = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    out = bytearray(patch_frame(encode(np.full((16, 16, 3), 128, np.uint8)), height=height, width=width))
    frame, start = out.index(b"\xff\xc0"), out.index(b"\xff\xda")
    for k, factor in enumerate(factors):
        out[frame + 11 + 3 * k] = factor
    return bytes(out[: start + 14]) + scan + b"\xff\xd9"


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Frame one PNG chunk with its length and checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """Write a PNG from raw rows that carry their filter bytes; `extra` holds chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + extra + body


def png16(values: np.ndarray) -> bytes:
    """Write uint16 [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA as a 16-bit PNG."""
    height, width = values.shape[:2]
    colour = {1: 0, 3: 2, 4: 6}[values.size // (height * width)]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(width, height, 16, colour, rows)


def _animated(kind: str) -> bytes:
    frames = [Image.fromarray(photo()), Image.fromarray(255 - photo())]
    return encode(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def _many_scans() -> bytes:
    """Append 2,000 refinement scans, the classic decoder time bomb, to a progressive JPEG."""
    data = encode(photo(), progressive=True)
    scan = b"\xff\xda\x00\x08\x01\x01\x00\x01\x3f\x10\x00"
    return data[:-2] + scan * 2000 + b"\xff\xd9"


def _bad() -> dict[str, tuple[bytes, str]]:
    jpeg, progressive = encode(photo(), quality=90), encode(photo(), quality=90, progressive=True)
    lossless, webp, bmp = encode(photo(), "PNG"), encode(photo(), "WEBP"), encode(photo(), "BMP")
    half = len(jpeg) // 2
    flipped = bytearray(lossless)
    flipped[len(lossless) // 2] ^= 4
    table = jpeg.index(b"\xff\xc4")
    no_table = jpeg[: table + 5] + b"\xff" * 16 + jpeg[table + 21 :]
    return {
        "empty.jpg": (b"", "empty-file"),
        "one-byte.jpg": (b"\xff", "not-an-image"),
        "zeros.jpg": (bytes(4096), "not-an-image"),
        "page.jpg": (b"<!DOCTYPE html><html><body>404 not found</body></html>", "not-an-image"),
        "text.png": (b"this is not a picture at all\n" * 9, "not-an-image"),
        "cut-10.jpg": (jpeg[: len(jpeg) // 10], "truncated"),
        "cut-50.jpg": (jpeg[:half], "truncated"),
        "cut-99.jpg": (jpeg[: len(jpeg) * 99 // 100], "truncated"),
        "no-end.jpg": (jpeg[:-2], "truncated"),
        "early-end.jpg": (jpeg[:half] + b"\xff\xd9", "truncated"),
        "early-end-progressive.jpg": (progressive[: len(progressive) // 2] + b"\xff\xd9", "truncated"),
        "no-tables.jpg": (no_table, "corrupt"),
        "bomb-9000.jpg": (patch_frame(jpeg, width=9000, height=9000), "too-large"),
        "bomb-65500.jpg": (patch_frame(jpeg, width=65500, height=65500), "too-large"),
        "bomb.png": (png(9500, 9500, 8, 2, bytes(5000)), "too-large"),
        "long-side.png": (png(20000, 10, 8, 0, bytes(200010)), "too-large"),
        "scan-bomb.jpg": (_many_scans(), "too-many-scans"),
        "height-zero.jpg": (patch_frame(jpeg, height=0), "bad-header"),
        "dot.png": (encode(photo(1, 1), "PNG"), "too-small"),
        "thin.jpg": (encode(photo(1, 4000)), "too-small"),
        "twelve-bit.jpg": (patch_frame(jpeg, marker=0xC1, precision=12), "jpeg-12-bit"),
        "lossless.jpg": (patch_frame(jpeg, marker=0xC3), "jpeg-lossless"),
        "hierarchical.jpg": (patch_frame(jpeg, marker=0xC5), "jpeg-hierarchical"),
        "arithmetic.jpg": (patch_frame(jpeg, marker=0xC9), "jpeg-arithmetic"),
        "animation.gif": (_animated("GIF"), "unsupported-format"),
        "scan.tif": (encode(photo(), "TIFF"), "unsupported-format"),
        "phone.heic": (b"\0\0\0\x18ftypheic" + bytes(200), "unsupported-format"),
        "animated.webp": (_animated("WEBP"), "animated"),
        "animated.png": (_animated("PNG"), "animated"),
        "cut.png": (lossless[:-20], "truncated"),
        "flipped.png": (bytes(flipped), "corrupt"),
        "cut.webp": (webp[:-9], "truncated"),
        "cut.bmp": (bmp[:-400], "truncated"),
    }


def _odd() -> dict[str, bytes]:
    image = photo()
    jpeg, picture = encode(image, quality=90), Image.fromarray(image)
    cmyk = encode(picture.convert("CMYK"), quality=95)
    adobe = cmyk.index(b"Adobe") + 11
    palette = picture.quantize(32)
    alpha = np.dstack([image, np.full((112, 112), 200, np.uint8)])
    turned = {f"exif-{k}.jpg": with_exif(jpeg, k, "<" if k % 2 else ">") for k in range(1, 9)}
    return {
        "plain.jpg": jpeg,
        "UPPER.JPG": jpeg,
        "with space.jpeg": jpeg,
        "\u00e9t\u00e9.jpg": jpeg,
        "png-inside.jpg": encode(image, "PNG"),
        "jpeg-inside.png": jpeg,
        "wide.jpg": encode(photo(150, 113)),
        "progressive.jpg": encode(image, progressive=True),
        "restarts.jpg": encode(image, restart_marker_blocks=4),
        "4-4-4.jpg": encode(image, subsampling=0),
        "4-2-2.jpg": encode(image, subsampling=1),
        "4-1-1.jpg": sampled_jpeg((0x41, 0x11, 0x11)),
        "4-4-0.jpg": sampled_jpeg((0x12, 0x11, 0x11)),
        "unusual-sampling.jpg": sampled_jpeg((0x22, 0x21, 0x12)),
        "extended.jpg": patch_frame(jpeg, marker=0xC1),
        "grey.jpg": encode(picture.convert("L")),
        "rgb.jpg": encode(image, keep_rgb=True),
        "cmyk.jpg": cmyk,
        "ycck.jpg": cmyk[:adobe] + b"\x02" + cmyk[adobe + 1 :],
        "profile.jpg": encode(image, icc_profile=bytes(600)),
        "trailing.jpg": jpeg + jpeg,
        **turned,
        "grey.png": encode(picture.convert("L"), "PNG"),
        "one-bit.png": encode(picture.convert("1"), "PNG"),
        "palette.png": encode(palette, "PNG"),
        "palette-clear.png": encode(palette, "PNG", transparency=3),
        "grey-alpha.png": encode(picture.convert("LA"), "PNG"),
        "alpha.png": encode(alpha, "PNG"),
        "grey-16.png": png16(image[..., 0].astype(np.uint16) * 257),
        "rgb-16.png": png16(image.astype(np.uint16) * 257),
        "rgba-16.png": png16(alpha.astype(np.uint16) * 257),
        "turned.png": encode(image, "PNG", exif=b"Exif\0\0" + exif(6)),
        "lossy.webp": encode(image, "WEBP", quality=90),
        "lossless.webp": encode(image, "WEBP", lossless=True),
        "alpha.webp": encode(alpha, "WEBP"),
        "turned.webp": encode(image, "WEBP", exif=b"Exif\0\0" + exif(8)),
        "plain.bmp": encode(image, "BMP"),
        "palette.bmp": encode(palette, "BMP"),
    }


def write_bad_files(folder: Path) -> dict[str, str]:
    """Write more than 30 files that must not become samples into a class folder; returns name -> reason.

    The last few never reach a decoder: the scan of the folder itself leaves them out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = _bad()
    files[".DS_Store"] = (b"\0\0\0\1Bud1", "hidden")
    files["Thumbs.db"] = (b"\xd0\xcf\x11\xe0", "system-file")
    files["notes.txt"] = (b"remember the milk", "not-an-image-extension")
    for name, (data, _) in files.items():
        (folder / name).write_bytes(data)
    reasons = {name: reason for name, (_, reason) in files.items()}
    os.symlink("empty.jpg", folder / "link.jpg")
    reasons["link.jpg"] = "link"
    return reasons


def write_odd_but_good(folder: Path) -> list[str]:
    """Write about 45 unusual but readable images into a class folder; returns their names, sorted.

    All are 112x112 but wide.jpg (150x113) and the three with hand-made sampling (32x32).
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in _odd().items():
        (folder / name).write_bytes(data)
    return sorted(_odd())
