"""Images of the same bytes are found wherever they are, and those that only look alike to a checksum are not."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from fastface.conversion.convert import convert
from fastface.conversion.duplicates import find_duplicates
from fastface.conversion.options import Options
from fastface.data.index import Index
from tests.data.shard_sets import face, make_set, write_folder

ROOT = Path(__file__).resolve().parents[2]


def read_csv(file: Path) -> list[list[str]]:
    with open(file, newline="") as text:
        return list(csv.reader(text))


def test_groups_are_those_of_a_slow_comparison(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw", people=6, images=4)
    for target, source in (("001/9", "001/0"), ("002/9", "001/0"), ("003/8", "003/1"), ("005/7", "004/2")):
        (raw / f"person_{target}.jpg").write_bytes((raw / f"person_{source[:3]}/00{source[4:]}.jpg").read_bytes())
    report = convert(Options("folder", raw, tmp_path / "set", workers=1, split={"a": 0.5, "b": 0.5}, split_by="image"))
    sets = {name: Index.open(tmp_path / "set" / name) for name in ("a", "b")}
    by_bytes: dict[bytes, set[tuple[str, str]]] = {}
    for name, index in sets.items():
        for i in range(len(index)):
            by_bytes.setdefault((raw / index.name(i)).read_bytes(), set()).add((name, index.name(i)))
    slow = sorted(sorted(group) for group in by_bytes.values() if len(group) > 1)
    rows = read_csv(tmp_path / "set" / "duplicates.csv")
    assert rows[0] == ["group", "set", "record", "name", "identity"]
    found: dict[str, list[tuple[str, str]]] = {}
    for group, name, record, file, identity in rows[1:]:
        assert sets[name].name(int(record)) == file
        assert file.startswith(identity + "/")
        found.setdefault(group, []).append((name, file))
    assert sorted(sorted(group) for group in found.values()) == slow
    assert len(slow) == 3
    assert report.duplicates is not None
    assert (report.duplicates.extra, report.duplicates.conflicts) == (4, 2)
    assert report.duplicates.shared == sum(len({name for name, _ in group}) > 1 for group in slow)
    assert "4 images repeat another byte by byte, in 3 groups: 2 under more than one identity" in str(report)


def test_equal_checksum_and_length_are_not_enough(tmp_path: Path) -> None:
    """Bytes appended to a JPEG as a comment that force a chosen crc32: linear algebra over 32 bits."""
    a, b = (face(k, 0) for k in (1, 2))
    length = max(len(a), len(b)) + 64
    first = a + bytes(length - len(a))
    second = force_crc(b + bytes(length - len(b)), zlib.crc32(first))
    assert (len(first), zlib.crc32(first)) == (len(second), zlib.crc32(second))
    for name, data in {"x/1.jpg": first, "y/1.jpg": second, "y/2.jpg": second}.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    convert(Options("folder", tmp_path / "in", tmp_path / "set", workers=1, shuffle=False))
    index = Index.open(tmp_path / "set")
    assert len(set(index.columns["crc32"].tolist())) == 1
    assert find_duplicates([index]).groups == [[(0, 1), (0, 2)]]


def force_crc(data: bytes, wanted: int) -> bytes:
    """Change the last four bytes so that the crc32 is `wanted`: crc is affine in them over GF(2)."""
    head = data[:-4]
    base = zlib.crc32(head + bytes(4))
    rows = [(zlib.crc32(head + (1 << k).to_bytes(4, "little")) ^ base, 1 << k) for k in range(32)]
    tail, left = 0, base ^ wanted
    for bit in reversed(range(32)):
        pivot = next(((v, w) for v, w in rows if v >> bit == 1), None)
        if pivot is None:
            continue
        rows = [(v ^ pivot[0], w ^ pivot[1]) if v >> bit & 1 else (v, w) for v, w in rows if (v, w) != pivot]
        if left >> bit & 1:
            left, tail = left ^ pivot[0], tail ^ pivot[1]
    assert left == 0
    return head + tail.to_bytes(4, "little")


def test_the_tool_compares_sets(tmp_path: Path) -> None:
    one = make_set(tmp_path / "a", people=3)
    two = make_set(tmp_path / "b", people=2, split={"x": 0.5, "y": 0.5})
    tool = [sys.executable, str(ROOT / "tools" / "check_shards.py"), str(one), str(two)]
    done = subprocess.run([*tool, "--duplicates", str(tmp_path / "same.csv")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("12 images repeat another byte by byte, in 12 groups: 0 under more than one identity")
    assert "12 in more than one set" in done.stdout
    assert {row[1] for row in read_csv(tmp_path / "same.csv")[1:]} == {str(one), str(two / "x"), str(two / "y")}


class Pretended:
    """As much of an index as candidates are chosen by."""

    def __init__(self, size: int) -> None:
        numbers = np.arange(size, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        self.columns = {
            "crc32": (numbers >> np.uint64(32)).astype("<u4"),
            "length": (numbers >> np.uint64(50)).astype("<i4"),
        }
        self.meta: dict[str, list] = {"shards": []}
        self.num_shards = 0

    def __len__(self) -> int:
        return len(self.columns["crc32"])


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
@pytest.mark.slow
def test_ten_million_images_take_little_memory() -> None:
    code = (
        "import resource, time\n"
        "from fastface.conversion.duplicates import find_duplicates\n"
        "from tests.conversion.test_duplicates import Pretended\n"
        "index = Pretended(10_000_000)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert not find_duplicates([index]).groups\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 300_000  # kB
