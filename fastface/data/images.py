"""Encoded bytes of any origin -> the upright 8-bit RGB JPEG or PNG that a shard keeps, or a named refusal."""

import io
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image

from fastface.data.geometry import UNMOVED, cut_matrix
from fastface.data.headers import MAX_SIDE, MIN_SIDE, REASONS, Header, Rejected, read_header

__all__ = ["REASONS", "ImageSpec", "Prepared", "Rejected", "cut_image", "decode_jpeg", "encode", "load_rgb", "prepare"]

DEFAULT_QUALITY = 95


@dataclass(frozen=True)
class ImageSpec:
    """What an image must become.

    Cutting goes in this order: the box if one is given, of it the central `crop` fraction of its width and of
    its height, of that (where `size` is given) the largest centred part of the target's aspect; then one
    antialiased bilinear resize (Pillow's BILINEAR) to `size`. Without `size` the part is copied, rounded to
    whole pixels.
    """

    size: tuple[int, int] | None = None  # (width, height) in px; None keeps the size
    crop: float | None = None  # 0 < crop <= 1
    quality: int | None = None  # 1..100: re-encode every image at this JPEG quality
    lossless: bool = False  # write PNG

    def __post_init__(self) -> None:
        if self.size is not None and not all(1 <= side <= MAX_SIDE for side in self.size):
            raise ValueError(f"size {self.size} must be (width, height) with sides of 1 to {MAX_SIDE} px")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise ValueError(f"crop {self.crop} must be a fraction in (0, 1]: 0.45 keeps the central 45 %")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ValueError(f"quality {self.quality} must be 1 to 100; {DEFAULT_QUALITY} is the default")
        if self.quality is not None and self.lossless:
            raise ValueError("quality and lossless exclude each other; drop one")


class Prepared(NamedTuple):
    """One image as a shard keeps it; `kept` says that the bytes are those of the input."""

    data: bytes
    width: int
    height: int
    kept: bool
    extension: str  # "jpg" or "png"
    matrix: tuple[float, ...] = UNMOVED  # px of the upright input -> px of this image: geometry.move_points
    face: np.ndarray | None = None  # float32 [15]: box, landmarks, score, where one was looked for


def prepare(data: bytes, spec: ImageSpec, box: np.ndarray | None = None) -> Prepared:
    """Decode fully and strictly, then keep the bytes where they fit `spec`, else cut, resize and encode.

    Fitting: an upright 8-bit baseline JPEG of the right size, grey or YCbCr 4:2:0, 4:2:2, 4:4:4 (with
    `lossless`: an upright 8-bit grey or RGB PNG), no box, no crop, no quality. Encoding is JPEG q95 4:2:0, or
    PNG. `box` is x0 y0 x1 y1 in pixels of the upright image, clipped to it. Raises Rejected.
    """
    header = read_header(data)
    image = _decode(data, header)  # uint8 [H, W, 3]
    wanted = "png" if spec.lossless else "jpeg"
    untouched = box is None and spec.crop in (None, 1.0) and spec.quality is None
    stored = header.width, header.height
    if untouched and header.plain and header.format == wanted and header.orientation == 1:
        if spec.size in (None, stored):
            return Prepared(data, *stored, kept=True, extension="png" if spec.lossless else "jpg")
    image, part = _cut(image, spec, box)
    return encode(image, spec)._replace(matrix=cut_matrix(part, image.shape[1], image.shape[0]))


def encode(image: np.ndarray, spec: ImageSpec) -> Prepared:
    """Encode uint8 [H, W, 3] as JPEG q95 4:2:0, or as `spec` says."""
    height, width = image.shape[:2]
    if spec.lossless:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "PNG")
        return Prepared(buffer.getvalue(), width, height, kept=False, extension="png")
    quality = spec.quality or DEFAULT_QUALITY
    encoded = simplejpeg.encode_jpeg(np.ascontiguousarray(image), quality, "RGB", "420", fastdct=False)
    return Prepared(encoded, width, height, kept=False, extension="jpg")


def load_rgb(data: bytes, spec: ImageSpec | None = None, box: np.ndarray | None = None) -> np.ndarray:
    """Decode, turn upright, cut and resize as `prepare` does, to uint8 [H, W, 3]. Raises Rejected."""
    return cut_image(_decode(data, read_header(data)), spec or ImageSpec(), box)


def cut_image(image: np.ndarray, spec: ImageSpec, box: np.ndarray | None = None) -> np.ndarray:
    """Cut and resize an upright uint8 [H, W, 3] image as `prepare` does. Raises Rejected."""
    return np.ascontiguousarray(_cut(image, spec, box)[0])


def decode_jpeg(data: Any) -> np.ndarray:
    """Decode a JPEG (bytes, memoryview or uint8 array) to uint8 [H, W, 3], exactly as deployment does.

    Accurate DCT and upsampling; orientation is ignored, since shards hold upright images; every libjpeg
    warning is an error. Raises Rejected.
    """
    try:
        return simplejpeg.decode_jpeg(data, "RGB")
    except ValueError as error:
        raise _refusal(error) from error


def _refusal(error: Exception) -> Rejected:
    text = str(error) or type(error).__name__
    early = any(word in text.lower() for word in ("premature end", "truncated", "not enough"))
    return Rejected("truncated" if early else "corrupt", text)


def _decode(data: bytes, header: Header) -> np.ndarray:
    """Decode to upright uint8 [H, W, 3]; ICC profiles are ignored, as they are in training."""
    try:
        image = _decode_jpeg_kind(data, header) if header.format == "jpeg" else _decode_pillow(data, header)
    except Rejected:
        raise
    except Exception as error:  # foreign parsers on foreign bytes raise whatever they like
        raise _refusal(error) from error
    if image.shape != (header.height, header.width, 3):
        found = f"{image.shape[1]} x {image.shape[0]}"
        raise Rejected("bad-header", f"the header says {header.width} x {header.height} px, the data {found}")
    return _upright(image, header.orientation)


def _decode_jpeg_kind(data: bytes, header: Header) -> np.ndarray:
    if header.colours != "cmyk":
        try:
            return simplejpeg.decode_jpeg(data, "RGB")
        except ValueError as error:
            # TurboJPEG names a dozen chroma layouts and refuses the rest, which libjpeg itself reads.
            if "subsampling" not in str(error) or not data.rstrip(b"\0").endswith(b"\xff\xd9"):
                raise
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
            return np.asarray(picture.convert("RGB"))
    ink = simplejpeg.decode_jpeg(data, "CMYK").astype(np.uint16)  # inverted, 255 = no ink, as Adobe writes it
    return ((ink[..., :3] * ink[..., 3:] + 127) // 255).astype(np.uint8)


def _decode_pillow(data: bytes, header: Header) -> np.ndarray:
    """Decode PNG, WebP or BMP. Alpha is laid over black, the colour that face alignment leaves outside an
    image; of 16-bit samples the high byte is kept, as libpng and OpenCV do."""
    with Image.open(io.BytesIO(data), formats=(header.format.upper(),)) as picture:
        picture.load()
        clear = picture.info.get("transparency")
        if picture.mode.startswith("I"):  # 16-bit grey, which convert("RGB") would clip at 255
            deep = np.asarray(picture).astype(np.uint16)
            grey = np.where(deep == clear, 0, deep >> 8) if isinstance(clear, int) else deep >> 8
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        if clear is None and picture.mode not in ("RGBA", "LA", "PA", "RGBa", "La"):
            return np.asarray(picture.convert("RGB"))
        pixels = np.asarray(picture.convert("RGBA")).astype(np.uint16)
    return ((pixels[..., :3] * pixels[..., 3:] + 127) // 255).astype(np.uint8)


def _upright(image: np.ndarray, orientation: int) -> np.ndarray:
    """Undo EXIF orientation 1..8 (2, 4, 5, 7 mirror; 3, 6, 8 turn)."""
    if orientation >= 5:
        image = image.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    if orientation in (3, 4, 7, 8):
        image = image[::-1]
    return image


def _region(width: int, height: int, spec: ImageSpec, box: np.ndarray | None) -> "Part":
    """Compute the part x0 y0 x1 y1 to be kept of an upright image."""
    x0, y0, x1, y1 = 0.0, 0.0, float(width), float(height)
    if box is not None:
        bx0, by0, bx1, by1 = (float(value) for value in box)
        if not all(map(math.isfinite, (bx0, by0, bx1, by1))) or bx0 >= bx1 or by0 >= by1:
            raise Rejected("bad-box", f"box {bx0:g} {by0:g} {bx1:g} {by1:g} must have x0 < x1 and y0 < y1")
        x0, y0, x1, y1 = max(x0, bx0), max(y0, by0), min(x1, bx1), min(y1, by1)
        if x0 >= x1 or y0 >= y1:
            raise Rejected("bad-box", f"box {bx0:g} {by0:g} {bx1:g} {by1:g} is outside {width} x {height} px")
    across, down = (x1 - x0) * (spec.crop or 1), (y1 - y0) * (spec.crop or 1)
    if spec.size is not None:
        aspect = spec.size[0] / spec.size[1]
        across, down = min(across, down * aspect), min(down, across / aspect)
    if min(across, down) < MIN_SIDE:
        raise Rejected("too-small", f"the part to keep is {across:.1f} x {down:.1f} px; at least {MIN_SIDE} a side")
    left, top = (x0 + x1 - across) / 2, (y0 + y1 - down) / 2
    return left, top, left + across, top + down


Part = tuple[float, float, float, float]  # x0 y0 x1 y1 px of the upright image


def _cut(image: np.ndarray, spec: ImageSpec, box: np.ndarray | None) -> tuple[np.ndarray, Part]:
    """Cut and resize an upright uint8 [H, W, 3] image; say which part of it the result shows."""
    height, width = image.shape[:2]
    region = _region(width, height, spec, box)
    if spec.size is None:
        x0, y0, x1, y1 = (round(value) for value in region)
        return image[y0:y1, x0:x1], (x0, y0, x1, y1)
    if region == (0, 0, *spec.size) and spec.size == (width, height):
        return image, region
    picture = Image.fromarray(np.ascontiguousarray(image))
    # The exact edges can leave the image by a rounding error, which Pillow refuses.
    edges = max(region[0], 0), max(region[1], 0), min(region[2], width), min(region[3], height)
    return np.asarray(picture.resize(spec.size, Image.Resampling.BILINEAR, box=edges)), region
