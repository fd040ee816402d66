"""An uncompressed .tar -> its members with their byte ranges; nothing is ever extracted."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

BLOCK = 512
_KINDS = {b"0": "file", b"\0": "file", b"7": "file", b"5": "folder", b"1": "link", b"2": "link"}
_MAX_EXTENSION_BYTES = 1 << 20  # of a long name or pax record; a path has at most 4,096


class Member(NamedTuple):
    """One member: name as stored, kind (file, folder, link, device, sparse), where its bytes lie."""

    name: bytes
    kind: str
    offset: int
    size: int


def members(path: Path) -> Iterator[Member]:
    """Yield all members of an ustar, GNU or pax archive in order.

    Unlike `tarfile`, which takes a damaged header for the end, raises ValueError with the byte offset for a
    bad header, data beyond the end of the file, a missing end mark, and data behind the end mark.
    """
    with path.open("rb") as file:
        end = os.fstat(file.fileno()).st_size
        if file.read(2) == b"\x1f\x8b":
            raise ValueError(f"{path} is gzip-compressed; unpack it with gunzip first, members are read in place")
        at, long_name, pax = 0, None, {}
        while True:
            file.seek(at)
            block = file.read(BLOCK)
            if len(block) < BLOCK:
                raise _damaged(path, at, "the archive has no end mark; it looks cut off")
            if not any(block):
                return _check_rest(file, path, at)
            kind, size = _header(block, path, at)
            size = int(pax.get(b"size", size))
            body = at + BLOCK
            at = body + -(-size // BLOCK) * BLOCK
            if size < 0 or body + size > end:
                raise _damaged(path, body - BLOCK, f"a member of {size} bytes ends beyond the file")
            if kind in (b"L", b"K", b"x", b"g"):
                text = _extension(file, path, body, size)
                if kind == b"L":
                    long_name = text.rstrip(b"\0")
                elif kind == b"x":
                    pax = _pax(text, path, body)
                continue
            name = pax.get(b"path", long_name or _name(block))
            sparse = kind == b"S" or any(key.startswith(b"GNU.sparse") for key in pax)
            kind = "sparse" if sparse else _KINDS.get(kind, "device")
            yield Member(name, "folder" if kind == "file" and name.endswith(b"/") else kind, body, size)
            long_name, pax = None, {}


def _damaged(path: Path, at: int, what: str) -> ValueError:
    return ValueError(f"{path} at byte {at}: {what}; copy or make the archive again")


def _number(field: bytes) -> int:
    """Read an octal field, or GNU's base 256 for values that octal cannot hold."""
    if field[0] & 0x80:
        return int.from_bytes(field, "big") - (0x80 << 8 * (len(field) - 1))
    return int(field.strip(b" \0") or b"0", 8)


def _header(block: bytes, path: Path, at: int) -> tuple[bytes, int]:
    try:
        total, size = _number(block[148:156]), _number(block[124:136])
    except ValueError:
        raise _damaged(path, at, "not a tar header") from None
    if total != sum(block) - sum(block[148:156]) + 8 * 32:
        raise _damaged(path, at, "a tar header fails its checksum")
    kind = block[156:157]
    return kind, 0 if kind in b"123456" else size  # links, devices and folders have no data


def _name(block: bytes) -> bytes:
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    return prefix + b"/" + name if prefix and block[257:263] == b"ustar\0" else name


def _extension(file: BinaryIO, path: Path, body: int, size: int) -> bytes:
    if size > _MAX_EXTENSION_BYTES:
        raise _damaged(path, body, f"a name record of {size} bytes")
    file.seek(body)
    return file.read(size)


def _pax(text: bytes, path: Path, at: int) -> dict[bytes, bytes]:
    """Parse "LENGTH KEY=VALUE newline" records."""
    records, position = {}, 0
    while position < len(text):
        digits = text[position : position + 20].split(b" ")[0]
        length = int(digits) if digits.isdigit() else 0
        record = text[position : position + length]
        if length <= len(digits) + 1 or not record.endswith(b"\n") or b"=" not in record:
            raise _damaged(path, at + position, "a malformed pax record")
        key, _, value = record[len(digits) + 1 : -1].partition(b"=")
        if key == b"size" and not (value.isdigit() and len(value) < 20):
            raise _damaged(path, at + position, f"a pax size of {value!r}")
        records[key] = value
        position += length
    return records


def _check_rest(file: BinaryIO, path: Path, at: int) -> None:
    """Require zeros behind the end mark: a zeroed header in the middle must not pass for the end."""
    file.seek(at)
    while chunk := file.read(1 << 20):
        if any(chunk):
            raise _damaged(path, at, "data follow the end mark (a zeroed header, or archives joined by cat)")
