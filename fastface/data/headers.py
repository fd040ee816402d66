"""Encoded image bytes -> Header: format, size and orientation, known before any pixel is allocated."""

import re
import struct
import zlib
from typing import NamedTuple, NoReturn

MAX_PIXELS = 50_000_000  # 150 MB as RGB; the largest phone photos are larger and never face crops
MAX_SIDE = 16_384
MIN_SIDE = 8  # one JPEG block; nothing smaller shows a face
MAX_SCANS = 100  # a progressive file has about 10; thousands of scans take minutes to decode
MAX_SEGMENTS = 100_000  # of a header; 300 MB of PNG in the usual 8 kB chunks has 37,000

REASONS: dict[str, str] = {
    "empty-file": "the file has no bytes",
    "not-an-image": "the first bytes are those of no image format",
    "unsupported-format": "an image, but not JPEG, PNG, WebP or BMP",
    "animated": "an animated PNG or WebP holds several pictures",
    "bad-header": "the header contradicts itself",
    "too-large": f"above {MAX_PIXELS // 10**6} million pixels, {MAX_SIDE} px a side, or 512 MB",
    "too-small": f"a side of the image, or of the part cut out of it, is below {MIN_SIDE} px",
    "truncated": "the file or its data ends early",
    "corrupt": "the decoder met damaged data",
    "too-many-scans": f"a progressive JPEG with more than {MAX_SCANS} scans",
    "jpeg-12-bit": "a JPEG of other than 8 bits",
    "jpeg-lossless": "a lossless-process JPEG",
    "jpeg-arithmetic": "an arithmetic-coded JPEG",
    "jpeg-hierarchical": "a hierarchical JPEG",
    "bad-box": "the box is not a rectangle inside the image, or landmarks span no face",
    "no-face": "the detector found none, and --no-face reject was given",
}


class Rejected(ValueError):
    """An image that cannot become a sample; `reason` is a key of REASONS, str() is the detail."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason

    def __str__(self) -> str:
        return self.args[1]


class Header(NamedTuple):
    """What the bytes say about themselves; width and height are as stored, before orientation."""

    format: str  # "jpeg", "png", "webp" or "bmp"
    width: int
    height: int
    orientation: int  # EXIF 1..8, 1 = upright
    plain: bool  # the form that shards keep: see _jpeg and _png
    colours: str  # JPEG: "grey", "ycc", "rgb", "cmyk"; PNG: "16" when 16 bits deep; else ""


def read_header(data: bytes) -> Header:
    """Identify by the first bytes and parse the header; Rejected for whatever must not be decoded."""
    if not data:
        raise Rejected("empty-file", "0 bytes")
    if data[:3] == b"\xff\xd8\xff":
        header = _jpeg(data)
    elif data[:8] == b"\x89PNG\r\n\x1a\n":
        header = _png(data)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        header = _webp(data)
    elif data[:2] == b"BM" and int.from_bytes(data[14:18], "little") in (12, 40, 52, 56, 64, 108, 124):
        header = _bmp(data)
    else:
        _refuse_unknown(data)
    _, width, height, *_ = header
    if width < 1 or height < 1:
        raise Rejected("bad-header", f"the header gives {width} x {height} px")
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise Rejected("too-large", f"{width} x {height} px; at most {MAX_PIXELS} px and {MAX_SIDE} px a side")
    if min(width, height) < MIN_SIDE:
        raise Rejected("too-small", f"{width} x {height} px; at least {MIN_SIDE} px a side")
    return header


_OTHER_FORMATS = {
    b"GIF8": "GIF", b"II*\0": "TIFF", b"MM\0*": "TIFF", b"8BPS": "Photoshop", b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x4f\xff\x51": "JPEG 2000", b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL": "JPEG XL", b"qoif": "QOI", b"P4": "PBM", b"P5": "PGM", b"P6": "PPM",
}  # fmt: skip


def _refuse_unknown(data: bytes) -> NoReturn:
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("ascii", "replace")
        raise Rejected("unsupported-format", f"an ISO media file of brand {brand!r} (HEIC, AVIF or video)")
    for magic, name in _OTHER_FORMATS.items():
        if data.startswith(magic):
            raise Rejected("unsupported-format", f"a {name} file; convert it to JPEG or PNG first")
    text = data[:64].lstrip().lower()
    looks = "looks like a web page; " if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")) else ""
    raise Rejected("not-an-image", f"{looks}first bytes {data[:8].hex(' ')}")


def _orientation(tiff: bytes) -> int:
    """Read tag 0x0112 of the first directory of a TIFF block; 1 where absent, damaged or out of 1..8."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None or len(tiff) < 10:
        return 1
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    if first + 2 > len(tiff):
        return 1
    (count,) = struct.unpack_from(order + "H", tiff, first)
    for k in range(min(count, (len(tiff) - first - 2) // 12)):
        tag, kind = struct.unpack_from(order + "HH", tiff, first + 2 + 12 * k)
        if tag == 0x0112:
            (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), tiff, first + 10 + 12 * k)
            return value if 1 <= value <= 8 else 1
    return 1


def _jpeg(data: bytes) -> Header:
    """Walk the segments up to the first scan.

    Plain = 8-bit baseline, grey or YCbCr 4:4:4, 4:2:2, 4:2:0, every component in the first scan or complete.
    """
    frame, adobe, jfif, orientation, at = None, None, False, 1, 2
    for _ in range(MAX_SEGMENTS):
        if at + 4 > len(data):
            raise Rejected("truncated", f"the JPEG header ends after {len(data)} bytes")
        if data[at] != 0xFF:
            raise Rejected("corrupt", f"no JPEG marker at byte {at}")
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker == 0xD9:
            raise Rejected("truncated", "the JPEG ends before its first scan")
        if marker <= 0x01 or 0xD0 <= marker <= 0xD8:
            raise Rejected("corrupt", f"JPEG marker ff{marker:02x} inside the header at byte {at}")
        if marker == 0xDA:
            break
        body, end = at + 4, at + 2 + (data[at + 2] << 8 | data[at + 3])
        if end < body or end > len(data):
            raise Rejected("truncated" if end > body else "corrupt", f"JPEG segment at byte {at} ends at {end}")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame is not None:
                raise Rejected("corrupt", "two frame headers in one JPEG")
            frame = marker, data[body:end]
        elif marker == 0xE0 and data[body : body + 5] == b"JFIF\0":
            jfif = True
        elif marker == 0xE1 and data[body : body + 6] == b"Exif\0\0":
            orientation = _orientation(data[body + 6 : end])
        elif marker == 0xEE and data[body : body + 5] == b"Adobe" and end >= body + 12:
            adobe = data[body + 11]
        at = end
    else:
        raise Rejected("corrupt", f"a JPEG header of more than {MAX_SEGMENTS} segments")
    if frame is None:
        raise Rejected("bad-header", "a JPEG scan without a frame header")
    return _jpeg_frame(data, at, *frame, adobe, jfif, orientation)


def _jpeg_frame(
    data: bytes, scan: int, marker: int, frame: bytes, adobe: int | None, jfif: bool, orientation: int
) -> Header:
    if marker in (0xC3, 0xC7, 0xCB, 0xCF):
        raise Rejected("jpeg-lossless", f"frame type SOF{marker - 0xC0}")
    if marker >= 0xC9:
        raise Rejected("jpeg-arithmetic", f"frame type SOF{marker - 0xC0}")
    if marker >= 0xC5:
        raise Rejected("jpeg-hierarchical", f"frame type SOF{marker - 0xC0}")
    if len(frame) < 6 or len(frame) != 6 + 3 * frame[5] or frame[5] not in (1, 3, 4):
        raise Rejected("bad-header", f"a frame header of {len(frame)} bytes")
    if frame[0] != 8:
        raise Rejected("jpeg-12-bit", f"{frame[0]} bits a sample")
    height, width, num_components = frame[1] << 8 | frame[2], frame[3] << 8 | frame[4], frame[5]
    identifiers, factors = frame[6::3], frame[7::3]
    if num_components == 1:
        colours = "grey"
    elif num_components == 4:
        colours = "cmyk"
    elif not jfif and (adobe == 0 or (adobe is None and identifiers == b"RGB")):  # libjpeg's rule
        colours = "rgb"
    else:
        colours = "ycc"
    if marker == 0xC2 or data[scan + 4 : scan + 5] != bytes([num_components]):
        _check_scans(data, scan, identifiers, progressive=marker == 0xC2)
    common = colours == "ycc" and factors in (b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")
    plain = marker == 0xC0 and (colours == "grey" or common)
    return Header("jpeg", width, height, orientation, plain, colours)


_SCAN = re.compile(rb"\xff\xda\x00[\x08-\x0e]")  # entropy-coded data never holds ff da: ff is followed by 00


def _check_scans(data: bytes, first: int, identifiers: bytes, progressive: bool) -> None:
    """Refuse too many scans, and files whose scans end before every coefficient is at full precision.

    libjpeg takes a progressive file that an editor or a download closed early for a finished, blurred one.
    """
    missing = {(name, k) for name in identifiers for k in range(64 if progressive else 1)}
    for num, match in enumerate(_SCAN.finditer(data, first), start=1):
        if num > MAX_SCANS:
            raise Rejected("too-many-scans", f"more than {MAX_SCANS} scans")
        body = match.end()
        count = data[body] if body < len(data) else 0
        scan = data[body + 1 : body + 4 + 2 * count]
        if len(scan) < 3 + 2 * count:
            raise Rejected("truncated", f"the scan header at byte {match.start()} is cut")
        low, high, approximation = scan[-3:]
        if not progressive:
            missing -= {(name, 0) for name in scan[0 : 2 * count : 2]}
        elif approximation & 15 == 0:
            missing -= {(name, k) for name in scan[0 : 2 * count : 2] for k in range(low, min(high, 63) + 1)}
    if missing:
        raise Rejected("truncated", f"the scans end with {len(missing)} coefficient bands incomplete")


def _png(data: bytes) -> Header:
    """Walk all chunks with their checksums; plain = 8-bit grey or RGB, not interlaced, no transparency."""
    at, orientation, transparent, first, last, count = 8, 1, False, b"", b"", 0
    while at < len(data) and last != b"IEND":
        count += 1
        if at + 12 > len(data):
            raise Rejected("truncated", f"a PNG chunk header is cut at byte {at}")
        (length,), kind = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        end = at + 12 + length
        if end > len(data):
            raise Rejected("truncated", f"PNG chunk {kind!r} at byte {at} needs {end - len(data)} more bytes")
        if count > MAX_SEGMENTS:
            raise Rejected("corrupt", f"a PNG of more than {MAX_SEGMENTS} chunks")
        if kind == b"IHDR" and length == 13 and not first:
            first = data[at + 8 : at + 21]
            width, height = struct.unpack_from(">II", first)
            if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
                break  # said by read_header; the checksums of a bomb are not worth the time
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise Rejected("corrupt", f"PNG chunk {kind!r} at byte {at} fails its checksum")
        if kind == b"acTL":
            raise Rejected("animated", "an animated PNG")
        if kind == b"eXIf":
            block = data[at + 8 : end - 4]
            orientation = _orientation(block[6:] if block[:6] == b"Exif\0\0" else block)
        transparent = transparent or kind == b"tRNS"
        last, at = kind, end
    else:
        if last != b"IEND":
            raise Rejected("truncated", "the PNG has no end chunk")
    if not first:
        raise Rejected("bad-header", "a PNG without an IHDR chunk")
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", first)
    plain = depth == 8 and colour in (0, 2) and not transparent and not interlaced
    return Header("png", width, height, orientation, plain, "16" if depth == 16 else "")


def _webp(data: bytes) -> Header:
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) or len(data) < 30:
        raise Rejected("truncated", f"the WebP announces {end} bytes and has {len(data)}")
    kind, orientation = data[12:16], 1
    if kind == b"VP8X":
        if data[20] & 2:
            raise Rejected("animated", "an animated WebP")
        width, height = (1 + int.from_bytes(data[k : k + 3], "little") for k in (24, 27))
        at = 12
        for _ in range(MAX_SEGMENTS):
            if at + 8 > end:
                break
            length = int.from_bytes(data[at + 4 : at + 8], "little")
            if data[at : at + 4] == b"EXIF":
                block = data[at + 8 : at + 8 + length]
                orientation = _orientation(block[6:] if block[:6] == b"Exif\0\0" else block)
            at += 8 + length + (length & 1)
    elif kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (int.from_bytes(data[k : k + 2], "little") & 0x3FFF for k in (26, 28))
    else:
        raise Rejected("corrupt", f"a WebP whose first chunk is {kind!r}")
    return Header("webp", width, height, orientation, False, "")


def _bmp(data: bytes) -> Header:
    if len(data) < 30:
        raise Rejected("truncated", "the BMP header is cut")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", width, abs(height), 1, False, "")
