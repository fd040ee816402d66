"""What surrounds a conversion must not matter: clocks, odd paths, a read-only input, a folder of very many files."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from fastface.conversion.check import check
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.index import Index
from tests.data.shard_sets import face, raw_bytes, tree, write_folder

ROOT = Path(__file__).resolve().parents[2]


def test_no_byte_depends_on_a_clock(tmp_path: Path) -> None:
    run = {"shard_size": 8, "workers": 1}
    raw = write_folder(tmp_path / "raw")
    convert(Options("folder", raw, tmp_path / "now", **run))
    files = sorted(raw.rglob("*.jpg"))
    convert(Options("folder", raw, tmp_path / "then", part=(0, 2), **run))
    for k, file in enumerate(files):
        os.utime(file, (0, 0) if k % 2 else (4_102_444_800, 4_102_444_800))  # 1970 and 2100
    for note in (tmp_path / "then.partial").rglob("*"):
        os.utime(note, (4_102_444_800, 4_102_444_800))
    report = convert(Options("folder", raw, tmp_path / "then", **run))
    assert report.reused == 2
    assert tree(tmp_path / "then") == tree(tmp_path / "now")


def test_the_input_is_only_read(tmp_path: Path) -> None:
    raw = write_folder(tmp_path / "raw")
    for path in [*raw.rglob("*"), raw]:
        path.chmod(path.stat().st_mode & ~(stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH))
    before = {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in [raw, *raw.rglob("*")]}
    convert(Options("folder", raw, tmp_path / "set", workers=1))
    assert check(tmp_path / "set", decode=True, workers=1, show=str) == []
    assert {path: (path.stat().st_mtime_ns, path.stat().st_mode) for path in [raw, *raw.rglob("*")]} == before
    for path in [raw, *raw.rglob("*")]:
        path.chmod(path.stat().st_mode | stat.S_IWUSR)


def test_spaces_long_names_and_deep_folders(tmp_path: Path) -> None:
    person = "x" * 255
    deep = "/".join(["y" * 200] * 12)  # a path of 2,400 characters below the person
    raw = tmp_path / "raw photos"
    names = [f"{person}/{'z' * 251}.jpg", f"with  space/{deep}/a b.jpg"]
    for k, name in enumerate(names):
        (raw / name).parent.mkdir(parents=True)
        (raw / name).write_bytes(face(k, 0))
    convert(Options("folder", raw, tmp_path / "a set" / "of shards", workers=1, shuffle=False))
    index = Index.open(tmp_path / "a set" / "of shards")
    assert sorted(index.name(i) for i in range(2)) == sorted(names)
    assert index.classes == sorted([person, "with  space"])
    assert raw_bytes(index, raw) == [face(names.index(index.name(i)), 0) for i in range(2)]
    with pytest.raises(ValueError, match=r"cannot write to|File name too long"):
        convert(Options("folder", raw, tmp_path / ("n" * 250), workers=1))


@pytest.mark.parametrize("people", [1, 2])
def test_one_person_is_a_dataset(tmp_path: Path, people: int) -> None:
    convert(Options("folder", write_folder(tmp_path / "raw", people=people, images=2), tmp_path / "set", workers=1))
    assert Index.open(tmp_path / "set").num_classes == people
    assert check(tmp_path / "set", workers=1, show=str) == []


MANY = """
import os, resource
from pathlib import Path

class Entry:
    def __init__(self, name, folder):
        self.name, self._folder = name, folder
    def is_dir(self, follow_symlinks=True): return self._folder
    def is_file(self, follow_symlinks=True): return not self._folder
    def is_symlink(self): return False

class Listing(list):
    def __enter__(self): return self
    def __exit__(self, *_): pass

def scandir(path):
    if path.rstrip("/") == "/pretended":
        return Listing(Entry(f"person_{k:05d}", True) for k in range(3_000))
    return Listing(Entry(f"{k:09d}.jpg", False) for k in range(100))

import fastface.data.sources.folder as folder
os.scandir, Path.is_dir = scandir, lambda self: True
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
source = folder.open_folder(Path("/pretended"))[""]
assert len(source) == 300_000 and len(source.classes) == 3_000
assert source.name(123_456) == "person_01234/000000056.jpg"
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kB on Linux only")
def test_many_files_are_listed_in_little_memory() -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", MANY], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 75_000  # kB: less than 250 bytes a file at the peak of the scan
