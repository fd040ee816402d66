"""Damaged and malicious files are refused by name: nothing runs, nothing hangs, no memory is taken."""

import io
import os
import pickle
import random
import struct
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from fastface.data.images import REASONS, ImageSpec, Rejected, load_rgb, prepare
from fastface.data.sources import read_file
from fastface.data.sources.bin import read_bin
from fastface.data.sources.kinds import open_source
from fastface.data.sources.tar import members
from tests.data import badfiles
from tests.data.badfiles import encode, photo
from tests.data.test_sources import JPEG, fill, make_tar, names_of, record, write_rec

BOMBS = {
    # NONE, LONG_BINPUT 0x0fffffff: CPython asks for 3 GB of memo
    "memo.bin": b"\x80\x02Nr\xff\xff\xff\x0f.",
    # numpy asks for 1 TiB before it looks at the data
    "array.bin": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n(K\x00tC\x01b\x87R"
    b"(K\x01\x8a\x06\0\0\0\0\0\x01\x85cnumpy\ndtype\nX\2\0\0\0u1\x89\x88\x87R\x89C\x00tb.",
    "shape.bin": b"\x80\x03cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n"
    b"\x8a\x06\0\0\0\0\0\x01\x85C\x01u\x87R.",
    "direct.bin": b"\x80\x03cnumpy\nndarray\n\x8a\x06\0\0\0\0\0\x01\x85R.",
    "length.bin": b"\x80\x04\x8e\0\0\0\0\0\1\0\0abc.",
    "frame.bin": b"\x80\x04\x95\0\0\0\0\0\1\0\0N.",
}


def refused(path: Path) -> str:
    with pytest.raises(ValueError, match="can be read safely") as caught:
        read_bin(path)
    return str(caught.value)


def test_bombs_are_refused_before_memory_is_asked_for(tmp_path: Path) -> None:
    for name, data in BOMBS.items():
        (tmp_path / name).write_bytes(data)
    badfiles.write_bad_files(tmp_path / "images")
    rec = write_rec(tmp_path / "long.rec", [record(0.0, b"x")], index=False)
    rec.write_bytes(rec.read_bytes()[:4] + struct.pack("<I", (1 << 29) - 1) + rec.read_bytes()[8:])
    script = """
import resource, sys, time
from pathlib import Path
from fastface.data.images import ImageSpec, prepare
from fastface.data.sources.kinds import open_source
from fastface.data.sources.bin import read_bin
folder = Path(sys.argv[1])
prepare((folder / "warm.jpg").read_bytes(), ImageSpec((32, 32)))
before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
tried = 0
for path in [*sorted(folder.glob("*.bin")), *sorted((folder / "images").glob("*bomb*")), folder / "long.rec"]:
    try:
        if path.suffix == ".bin":
            read_bin(path)
        elif path.suffix == ".rec":
            open_source("rec", path)
        else:
            prepare(path.read_bytes(), ImageSpec((112, 112)))
        print("accepted", path)
    except ValueError:
        tried += 1
grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(tried, grown * (1 if sys.platform == "darwin" else 1024), time.process_time() - start)
"""
    (tmp_path / "warm.jpg").write_bytes(JPEG)
    root = Path(__file__).parents[2]
    out = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        env=os.environ | {"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    tried, grown, seconds = int(out[0]), int(out[1]), float(out[2])
    assert tried == len(BOMBS) + 4 + 1
    assert grown < 50e6
    assert seconds < 5


class Runs:
    """Pickles to a call of any function."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


def test_no_pickle_runs_anything(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    canary.write_text("alive")
    for k, (function, *arguments) in enumerate(
        [
            (os.system, f"rm {canary}"),
            (os.remove, str(canary)),
            (eval, f"__import__('os').remove({str(canary)!r})"),
            (getattr, os, "remove"),
            (np.fromfile, str(canary)),
            (np.zeros, 1 << 40),
            (bytearray, 1 << 40),
            (__import__, "os"),
        ]
    ):
        for protocol in range(2, 6):
            path = tmp_path / f"{k}-{protocol}.bin"
            calls = [function] if function is getattr else [Runs(function, *arguments)]
            path.write_bytes(pickle.dumps(([JPEG, calls], [True]), protocol=protocol))
            assert "names the global" in refused(path)
    assert canary.read_text() == "alive"


GET = b"cnumpy.core.multiarray\n_reconstruct\n"
DTYPE = b"cnumpy\ndtype\nX\2\0\0\0%b\x89\x88\x87R"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"cos\nsystem\nC\x04true\x85R.", "'os.system'"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "__globals__"),
        (b"X\2\0\0\0osX\6\0\0\0system\x93.", "'os.system'"),
        (b"(ios\nsystem\n.", "INST"),
        (b"cnumpy\ndtype\n)\x81.", "NEWOBJ"),
        (b"(cnumpy\ndtype\no.", "OBJ"),
        (b"Pabc\n.", "PERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"}.", "EMPTY_DICT"),
        (b"\x8f.", "EMPTY_SET"),
        (b"\x97.", "NEXT_BUFFER"),
        (GET + b"]b.", "sets the state of _Constructor"),
        (b"cnumpy\ndtype\nX\1\0\0\0O\x85R.", "dtype 'O'"),
        (b"cnumpy\ndtype\nX\2\0\0\0f8\x85R.", "dtype 'f8'"),
        (DTYPE % b"u1" + b"(K\3X\1\0\0\0|N(X\1\0\0\0at}}tb.", "EMPTY_DICT"),
        (DTYPE % b"u1" + b"(K\3X\1\0\0\0|N]]tb.", "structured"),
        (b"c_codecs\nencode\nX\1\0\0\0aX\6\0\0\0rot_13\x86R.", "latin1"),
        (b"c_codecs\ndecode\nC\1aX\6\0\0\0latin1\x86R.", "'_codecs.decode'"),
        (b"]" + b"]a" * 3 + b".", "images, same"),
        (b"N.", "images, same"),
        (b"", "pickle exhausted|STOP|not found"),
        (b"]](C\1aC\1be](\x88e\x86", "pickle exhausted|STOP"),
    ],
)  # fmt: skip
def test_pickle_tricks_are_named(tmp_path: Path, body: bytes, message: str) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(b"\x80\x03" + body)
    with pytest.raises(ValueError, match=message):
        read_bin(path)


def test_texts_cannot_be_encoded_without_end(tmp_path: Path) -> None:
    """One text, encoded a thousand times by reference, would grow the file a thousandfold."""
    text = b"X" + struct.pack("<I", 100_000) + b"a" * 100_000 + b"q\1"
    head = b"\x80\x02c_codecs\nencode\nq\0" + text + b"X\6\0\0\0latin1q\2"
    once = b"h\0h\1h\2\x86R"
    (tmp_path / "a.bin").write_bytes(head + once * 1000 + b".")
    assert "expand to more than the file's size" in refused(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (([JPEG] * 3, [True]), "3 images do not match 1 pairs"),
        (([], []), "0 images"),
        (([JPEG, "text"], [True]), "image 1 is str"),
        (([JPEG, 5], [True]), "image 1 is int"),
        (([JPEG, JPEG], [2]), "True and False"),
        (([JPEG, JPEG], ["yes"]), "True and False"),
        (([JPEG, JPEG], [0.5]), "True and False"),
        (([JPEG, JPEG], JPEG), "True and False"),
        ((JPEG, [True]), "must be a list, not bytes"),
        (([np.zeros(4, np.int32)] * 2, [True]), "numpy array of i4"),
        (([np.zeros(4, np.float32)] * 2, [True]), "dtype 'f4'"),
        (([np.array([b"a", None])] * 2, [True]), "dtype 'O8'"),
        (([JPEG, JPEG], [True], 1), "images, same"),
    ],
)
def test_pickles_of_other_things_are_named(tmp_path: Path, value: object, message: str) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps(value, protocol=4))
    assert message in refused(tmp_path / "a.bin")


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ("0\t0\n1\t99999\n", "line 2, key 1: offset 99999"),
        ("0\t0\n1\t-36\n", "offset -36"),
        ("0\t0\n1\t2\n", "offset 2"),
        ("0\t0\n1\t36\n1\t72\n", "key twice"),
        ("0\t0\n1\t4\n", "record 1"),
        ("0\t0\n1\n", "key and an offset"),
        ("0\tx\n", "key and an offset"),
        ("0\t99999999999999999999999\n", "key and an offset"),
        ("", "no lines"),
        ("0\t0\n1\t12\n", "record 1"),
    ],
)
def test_an_index_that_points_elsewhere_is_refused(tmp_path: Path, index: str, message: str) -> None:
    path = write_rec(tmp_path / "a.rec", [record(float(k), b"im%d" % k) for k in range(3)])
    path.with_suffix(".idx").write_text(index)
    with pytest.raises(ValueError, match=r"a\.(rec|idx)") as caught:
        open_source("rec", path)
    assert message in str(caught.value)


@pytest.mark.parametrize("index", [True, False])
@pytest.mark.parametrize(
    ("at", "word", "message"),
    [
        (40, (1 << 29) - 1, "beyond the file"),  # length of record 1
        (36, 5, "no RecordIO record"),
        (40, 4 << 29 | 28, "continuation flag 4"),
        (40, 3 << 29 | 28, "out of order"),
        (40, 1 << 29 | 28, "out of order"),
        (40, 20, "no RecordIO record|too few"),
        (44, 0xFFFFFFFF, "labels do not fit"),
        (44, 2, "labels do not fit"),
    ],
)
def test_damaged_records_are_refused(tmp_path: Path, index: bool, at: int, word: int, message: str) -> None:
    path = write_rec(tmp_path / "a.rec", [record(float(k), b"im%d" % k) for k in range(3)], index)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, at, word)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=message):
        open_source("rec", path)


def test_no_prefix_of_a_rec_file_loses_records_silently(tmp_path: Path) -> None:
    whole = write_rec(tmp_path / "a.rec", [record(float(k), b"image%d" % k) for k in range(3)])
    data, index = whole.read_bytes(), whole.with_suffix(".idx").read_text()
    for end in range(0, len(data) - 2):  # the last two bytes are padding
        whole.write_bytes(data[:end])
        whole.with_suffix(".idx").write_text(index)
        with pytest.raises(ValueError, match=r"a\.(rec|idx)"):
            open_source("rec", whole)


def hostile_tar(path: Path) -> None:
    """Write one good image among members that unpacking would put elsewhere."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:

        def add(name: str, kind: bytes = tarfile.REGTYPE, data: bytes = JPEG, link: str = "", **pax: str) -> None:
            info = tarfile.TarInfo(name)
            info.type, info.linkname, info.pax_headers = kind, link, pax
            info.size = len(data) if kind == tarfile.REGTYPE else 0
            tar.addfile(info, io.BytesIO(data))

        add("a/1.jpg", data=b"old")
        add("../up/1.jpg")
        add("/abs/1.jpg")
        add("a/../b/1.jpg")
        add("a/new\nline.jpg")
        add("a/nul.jpg", path="a/nul\0.jpg")
        add("a/soft.jpg", tarfile.SYMTYPE, link="/etc/passwd")
        add("a/hard.jpg", tarfile.LNKTYPE, link="a/1.jpg")
        add("a/pipe.jpg", tarfile.FIFOTYPE)
        add("a/tty.jpg", tarfile.CHRTYPE)
        add("a/._1.jpg")
        add("./a/1.jpg", data=b"new")


def test_members_that_reach_out_of_a_tar_are_left_out(tmp_path: Path) -> None:
    hostile_tar(tmp_path / "a.tar")
    source = open_source("folder", tmp_path / "a.tar")[""]
    assert names_of(source) == ["a/1.jpg"]
    assert source.read(0) == b"new"
    assert source.skipped == sorted([
        ("../up/1.jpg", "unsafe-name"), ("/abs/1.jpg", "unsafe-name"), ("a/../b/1.jpg", "unsafe-name"),
        ("a/new\nline.jpg", "unsafe-name"), ("a/nul\0.jpg", "unsafe-name"), ("a/soft.jpg", "link"),
        ("a/hard.jpg", "link"), ("a/pipe.jpg", "not-a-file"), ("a/tty.jpg", "not-a-file"),
        ("a/._1.jpg", "hidden"), ("a/1.jpg", "duplicate-name"),
    ])  # fmt: skip


def test_a_cut_tar_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    fill(tmp_path / "in", [f"a/{k}.jpg" for k in range(4)])
    path = make_tar(tmp_path / "a.tar", tmp_path / "in")
    data, count = path.read_bytes(), len(list(members(path)))
    end = max(member.offset + member.size for member in members(path))
    for cut in [*range(1, end, 97), *range(512, end, 512), end, -(-end // 512) * 512]:
        path.write_bytes(data[:cut])
        with pytest.raises(ValueError, match="at byte"):
            list(members(path))
    path.write_bytes(data[: -(-end // 512) * 512 + 512])  # one zero block is enough of an end
    assert len(list(members(path))) == count


def test_damage_inside_a_tar_does_not_end_it_silently(tmp_path: Path) -> None:
    fill(tmp_path / "in", [f"a/{k}.jpg" for k in range(4)])
    path = make_tar(tmp_path / "a.tar", tmp_path / "in")
    data, header = path.read_bytes(), [member.offset - 512 for member in members(path)][3]
    with tarfile.open(path) as tar:
        assert len(tar.getnames()) == 6
    flipped = bytearray(data)
    flipped[header + 30] ^= 1
    zeroed = data[:header] + bytes(512) + data[header + 512 :]
    for damaged, message in ((bytes(flipped), "checksum"), (zeroed, "follow the end mark")):
        path.write_bytes(damaged)
        with tarfile.open(path) as tar:
            assert len(tar.getnames()) < 6  # what tarfile makes of it
        with pytest.raises(ValueError, match=message):
            list(members(path))
    path.write_bytes(b"\x1f\x8b" + data)
    with pytest.raises(ValueError, match="gzip"):
        list(members(path))


def test_devices_pipes_and_links_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", Path("/dev/zero"), tmp_path):
        with pytest.raises((ValueError, OSError), match=r"regular|directory|symbolic"):
            read_file(path, follow=True)
    (tmp_path / "huge.jpg").touch()
    os.truncate(tmp_path / "huge.jpg", 1 << 40)  # sparse: takes no space
    with pytest.raises(ValueError, match="more than"):
        read_file(tmp_path / "huge.jpg")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Flip, cut, repeat, insert or overwrite a few places."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at, length = rng.randrange(len(out) + 1), rng.choice((1, 1, 2, 4, 40))
        move = rng.randrange(5)
        if move == 0:
            out[at : at + length] = rng.randbytes(length)
        elif move == 1:
            out[at : at + length] = rng.choice((b"\xff", b"\0")) * length
        elif move == 2:
            del out[at : at + length]
        elif move == 3:
            out[at:at] = out[max(at - length, 0) : at]
        elif len(out) > 1:
            del out[rng.randrange(1, len(out)) :]
    return bytes(out)


ROUNDS = int(os.environ.get("FASTFACE_FUZZ_ROUNDS", "200"))


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png", "palette", "webp", "bmp", "exif"])
def test_mutated_images_are_read_or_refused(name: str) -> None:
    image = photo(40, 32)
    palette = badfiles.Image.fromarray(image).quantize(16)
    data = {
        "jpeg": encode(image),
        "progressive": encode(image, progressive=True),
        "png": encode(image, "PNG"),
        "palette": encode(palette, "PNG", transparency=3),
        "webp": encode(image, "WEBP", exif=b"Exif\0\0" + badfiles.exif(6)),
        "bmp": encode(palette, "BMP"),
        "exif": badfiles.with_exif(encode(image), 5),
    }[name]
    rng, reasons = random.Random(name), []
    for _ in range(ROUNDS):
        mutant = mutate(data, rng)
        try:
            prepared = prepare(mutant, ImageSpec((16, 16)))
            assert load_rgb(prepared.data).shape == (16, 16, 3)
        except Rejected as error:
            reasons.append(error.reason)
    assert set(reasons) <= REASONS.keys()
    assert ROUNDS // 10 < len(reasons)


@pytest.mark.filterwarnings("ignore:.*leaves out", "ignore:invalid escape sequence")
@pytest.mark.parametrize("name", ["a.tar", "a.rec", "scan.rec", "a.idx", "a.bin", "old.bin", "a.csv"])
def test_mutated_datasets_are_read_or_refused(tmp_path: Path, name: str) -> None:
    fill(tmp_path / "in", ["a/1.jpg", "b/2.jpg"])
    write_rec(tmp_path / "a.rec", [record([5.0, 7.0], b""), *[record(float(k), b"im%d" % k) for k in range(4)]])
    write_rec(tmp_path / "scan.rec", [record(float(k), b"im%d" % k) for k in range(3)], index=False)
    arrays = [np.frombuffer(b"abc%d" % k, np.uint8) for k in range(4)]
    (tmp_path / "a.bin").write_bytes(pickle.dumps((arrays, [True, False]), protocol=3))
    (tmp_path / "old.bin").write_bytes(pickle.dumps(([b"a", b"bc"], [np.bool_(True)]), protocol=1))
    (tmp_path / "a.csv").write_text("path,label,x0,y0,x1,y1,age\nin/a/1.jpg,a,0,0,9,9,3\nin/b/2.jpg,b,0,0,9,9,4\n")
    make_tar(tmp_path / "a.tar", tmp_path / "in")
    kind = {"tar": "folder", "rec": "rec", "idx": "rec", "bin": "bin", "csv": "list"}[name.split(".")[1]]
    target = tmp_path / "a.rec" if name == "a.idx" else tmp_path / name
    data = (tmp_path / name).read_bytes()
    data = data[:6144] if name == "a.tar" else data  # without the padding, where nothing can break
    rng, bad = random.Random(name), 0
    for _ in range(ROUNDS):
        (tmp_path / name).write_bytes(mutate(data, rng))
        try:
            for source in open_source(kind, target).values():
                for i in range(len(source)):
                    assert isinstance(source.name(i), str)
                    try:
                        assert isinstance(source.read(i), bytes)
                    except OSError:  # a list may name files that are not there
                        assert kind == "list"
        except ValueError:
            bad += 1
    assert bad > ROUNDS // 10
