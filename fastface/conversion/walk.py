"""A shard's bytes -> its members in order, or exactly where and how it is no tar that fastface wrote."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastface.data.shards import BLOCK, END, padded, tar_header

MEMBER = re.compile(r"\d{9,}\.(jpg|png|cls)")
FOREIGN = {  # type flags of other tars, POSIX.1-2001 pax and GNU tar manual
    b"x": "a pax header",
    b"g": "a pax global header",
    b"L": "a GNU long name",
    b"K": "a GNU long link",
    b"S": "a GNU sparse file",
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a device",
    b"4": "a device",
    b"5": "a folder",
    b"6": "a pipe",
}


class Member(NamedTuple):
    """One file in the tar."""

    name: str
    offset: int  # of its bytes
    length: int


class Damage(ValueError):
    """Something at byte `at` that does not belong in a shard."""

    def __init__(self, at: int, what: str) -> None:
        super().__init__(f"at byte {at}: {what}")


def walk(data: np.ndarray) -> Iterator[Member]:
    """Yield the members of a shard (uint8 [bytes]); raise Damage at the first thing that is not as written.

    Python's tarfile ends silently at a cut between members, in a header, or at a damaged header; here every
    byte outside the members' own data is compared with what fastface writes.
    """
    if data[:2].tobytes() == b"\x1f\x8b":
        raise Damage(0, "gzip-compressed; shards are plain tars, unpack it with gunzip")
    at, seen = 0, dict[str, int]()
    while True:
        header = data[at : at + BLOCK].tobytes()
        if not header:
            raise Damage(at, "the file ends without the two zero blocks that end a tar")
        if len(header) < BLOCK:
            raise Damage(at, f"the file ends {len(header)} bytes into a header")
        if not any(header):
            _check_end(data, at)
            return
        name, length = _read_header(header, at)
        first = seen.setdefault(name.lower(), at)
        if first != at:
            raise Damage(at, f"member {name} is there already, at byte {first}")
        body, after = at + BLOCK, at + BLOCK + padded(length)
        if body + length > len(data):
            raise Damage(at, f"the file ends {len(data) - body:,} bytes into the {length:,} of {name}")
        if after > len(data):
            raise Damage(at, f"the file ends in the padding behind {name}")
        if data[body + length : after].any():
            raise Damage(body + length, f"the padding behind {name} is not zero")
        yield Member(name, body, length)
        at = after


def _check_end(data: np.ndarray, at: int) -> None:
    rest = data[at:]
    if rest.any():
        raise Damage(at, "a zeroed header: members follow it")
    if len(rest) != len(END):
        raise Damage(at, f"{len(rest):,} zero bytes end the file, not {len(END):,}")


def _read_header(header: bytes, at: int) -> tuple[str, int]:
    """Return name and length; a header must be, byte by byte, the one that fastface writes for them."""
    try:
        total, length = int(header[148:156].split(b"\0")[0], 8), int(header[124:135], 8)
    except ValueError:
        raise Damage(at, "this is no tar header") from None
    if total != sum(header) - sum(header[148:156]) + 8 * ord(" "):
        raise Damage(at, "the header fails its checksum")
    name = header[:100].split(b"\0")[0].decode("utf-8", "backslashreplace")
    if kind := FOREIGN.get(header[156:157]):
        raise Damage(at, f"{kind} ({name}): only regular files belong in a shard")
    if not MEMBER.fullmatch(name):
        raise Damage(at, f"member {name!r}: names are a key of nine digits, one dot and jpg, png or cls")
    if header != tar_header(name, length):
        raise Damage(at, f"the header of {name} has an owner, a date or other fields that fastface never writes")
    return name, length


def search(data: np.ndarray) -> Iterator[Member]:
    """Yield every image and label that has a header at a block boundary, stepping over damage.

    Any tar's header will do, as tools may have packed the shard anew.
    """
    at = 0
    while at + BLOCK <= len(data):
        header = data[at : at + BLOCK].tobytes()
        name = header[:100].split(b"\0")[0].decode("ascii", "replace")
        try:
            total, length = int(header[148:156].split(b"\0")[0], 8), int(header[124:135], 8)
        except ValueError:
            total, length = -1, -1
        whole = total == sum(header) - sum(header[148:156]) + 8 * ord(" ")
        if not whole or length < 0 or not MEMBER.fullmatch(name):
            at += BLOCK
            continue
        yield Member(name, at + BLOCK, length)
        at += BLOCK + padded(length)
