"""InsightFace pair files, pickles of (images, same) -> Source, by an unpickler that builds nothing else."""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fastface.data.sources import Source

NUM_FOLDS = 10
MAX_BIN_BYTES = 1 << 32  # 4 GB; a file of 7,000 pairs of 112 px faces has 80 MB
MAX_OPCODES = 4_000_000  # numpy images take 14 each

# What protocols 0 to 5 write for lists, tuples, bytes, text, numbers and references. No opcode that makes an
# object from a class (NEWOBJ, INST, OBJ), no dicts or sets, no persistent ids, extensions or outside buffers.
_OPCODES = frozenset(
    """PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT BININT BININT1 BININT2 LONG LONG1
    LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8
    UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_LIST LIST APPEND APPENDS EMPTY_TUPLE TUPLE TUPLE1
    TUPLE2 TUPLE3 GET BINGET LONG_BINGET PUT BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE
    BUILD""".split()
)
_PUTS = ("PUT", "BINPUT", "LONG_BINPUT")
_KINDS = {"u1": 1, "b1": 1, "i1": 1, "i2": 2, "i4": 4, "i8": 8, "u2": 2, "u4": 4, "u8": 8}  # dtype -> bytes


class BinSource(Source):
    """The images of a pair file in their order; each pair is a class, as nothing else is known."""

    def __init__(self, images: list[bytes], same: np.ndarray) -> None:
        num_pairs = len(same)
        self._images = images
        classes = [f"pair-{i:06d}" for i in range(num_pairs)]
        super().__init__(classes, np.arange(2 * num_pairs, dtype=np.int64) // 2)
        self.columns = {"same": np.repeat(same, 2).astype(np.int8)}
        self.ordered = True
        folds = np.repeat(range(NUM_FOLDS), [len(part) for part in np.array_split(np.arange(num_pairs), NUM_FOLDS)])
        self.pairs = [(self.name(2 * i), self.name(2 * i + 1), bool(same[i]), int(folds[i])) for i in range(num_pairs)]

    def name(self, i: int) -> str:
        return f"{i:09d}"

    def read(self, i: int) -> bytes:
        return self._images[i]


def open_bin(path: Path) -> BinSource:
    """Read a pair file; its ten folds are consecutive and equal, as its official order wants them."""
    return BinSource(*read_bin(path))


def read_bin(path: str | Path) -> tuple[list[bytes], np.ndarray]:
    """Read a pair file to the encoded images (two a pair) and bool [num_pairs] `same`.

    Images are bytes or numpy uint8 arrays, the pickle of Python 2 or 3, protocol 0 to 5. Nothing of the
    pickle is called: the few globals it may name stand for stand-ins that check and keep data. Raises
    ValueError for all else.
    """
    path = Path(path)
    size = path.stat().st_size
    if size > MAX_BIN_BYTES:
        raise ValueError(f"{path} has {size} bytes; pair files above {MAX_BIN_BYTES} are not read")
    data = path.read_bytes()
    try:
        _scan(data)
        found = _Unpickler(data).load()
        return _pairs(found)
    except Exception as error:  # a hostile pickle fails in any way it likes
        text = str(error) or type(error).__name__
        raise ValueError(f"{path} is not a pair file that can be read safely: {text}") from error


def _pairs(found: Any) -> tuple[list[bytes], np.ndarray]:
    if not isinstance(found, tuple | list) or len(found) != 2:
        raise ValueError("it must hold (images, same)")
    images, same = found
    if not isinstance(images, list | tuple):
        raise ValueError(f"its images must be a list, not {type(images).__name__}")
    blobs = [image.blob() if isinstance(image, _Array) else image for image in images]
    for i, blob in enumerate(blobs):
        if not isinstance(blob, bytes):
            raise ValueError(f"image {i} is {type(blob).__name__}, not bytes or a uint8 array")
    flags = same.numbers() if isinstance(same, _Array) else same
    if not isinstance(flags, list | tuple) or any(
        type(flag) not in (bool, int) or flag not in (0, 1) for flag in flags
    ):
        raise ValueError("the second part must be a list of True and False")
    if len(blobs) != 2 * len(flags) or not flags:
        raise ValueError(f"{len(blobs)} images do not match {len(flags)} pairs")
    return blobs, np.array(flags, bool)


def _scan(data: bytes) -> None:
    """Walk the opcodes before anything runs: only known ones, and no reference beyond what was written.

    `pickletools` itself refuses arguments longer than the file. A memo index is an allocation in CPython: a
    9-byte pickle with index 2^28 takes 3 GB, so an index must not exceed the number of opcodes so far.
    """
    try:
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data), start=1):
            if opcode.name not in _OPCODES:
                raise ValueError(f"pickle opcode {opcode.name} at byte {at}")
            if count > MAX_OPCODES:
                raise ValueError(f"more than {MAX_OPCODES} pickle opcodes")
            if opcode.name in _PUTS and not (type(argument) is int and 0 <= argument < count):
                raise ValueError(f"memo index {argument} at byte {at}, after {count} opcodes")
    except UnicodeDecodeError:
        raise ValueError("a text pickle (protocol 0) of Python 2; write it again with protocol 2") from None


class _Unpickler(pickle.Unpickler):
    """Unpickle with stand-ins for numpy's constructors, whose copies are bounded by the file's size."""

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data), fix_imports=False, encoding="bytes", errors="strict")
        self._budget = len(data)
        table: dict[str, Callable[..., Any]] = {"_codecs encode": self._encode}
        for core in ("numpy.core", "numpy._core"):
            table[f"{core}.multiarray _reconstruct"] = lambda *_: _Array()
            table[f"{core}.multiarray scalar"] = _scalar
            table[f"{core}.numeric _frombuffer"] = _from_buffer
        table["numpy ndarray"] = _uncallable
        table["numpy dtype"] = _Dtype
        self._table = {name: _Constructor(name, build) for name, build in table.items()}

    def find_class(self, module: str, name: str) -> Any:
        key = f"{module} {name}"
        if key not in self._table:
            raise ValueError(f"it names the global {f'{module}.{name}'[:200]!r}, which a pair file does not need")
        return self._table[key]

    def _encode(self, text: Any, encoding: Any) -> bytes:
        if type(text) is not str or encoding not in ("latin1", b"latin1"):
            raise ValueError("_codecs.encode is allowed for text as 'latin1' only")
        self._budget -= len(text)
        if self._budget < 0:
            raise ValueError("its texts expand to more than the file's size")
        return text.encode("latin1")


class _Inert:
    """An object that a pickle can hold but not change: BUILD finds no dict and no state to set."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise ValueError(f"it sets the state of {type(self).__name__}")


class _Constructor(_Inert):
    """The stand-in for one global."""

    __slots__ = ("_build", "_name")

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self._name, self._build = name, build

    def __call__(self, *arguments: Any) -> Any:
        return self._build(*arguments)


def _uncallable(*_: Any) -> None:
    raise ValueError("it calls numpy.ndarray")


def _text(value: Any) -> str:
    """Return text that Python 2 wrote as bytes."""
    return value.decode("ascii") if isinstance(value, bytes) else str(value)


class _Dtype(_Inert):
    """The stand-in for numpy.dtype: a kind from the table of integers and bool, and a byte order."""

    __slots__ = ("kind", "order")

    def __init__(self, kind: Any, *_: Any) -> None:
        self.kind = _text(kind).lstrip("|<=>")
        self.order: Literal["little", "big"] = "little"
        if self.kind not in _KINDS:
            raise ValueError(f"numpy dtype {self.kind[:20]!r}; pair files need uint8, integers or bool")

    def __setstate__(self, state: Any) -> None:
        """Take the byte order from (version, order, subdtype, names, fields, ...) and refuse structure."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError("a structured numpy dtype")
        self.order = "big" if _text(state[1]) == ">" else "little"


class _Array(_Inert):
    """The stand-in for a numpy array: holds the bytes of the pickle themselves, allocates nothing."""

    __slots__ = ("_data", "_dtype")

    def __setstate__(self, state: Any) -> None:
        """Take (version, shape, dtype, fortran, data), as ndarray.__reduce__ writes it."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("the state of a numpy array is not the five values that numpy writes")
        _, shape, dtype, _, data = state
        self.fill(shape, dtype, data)

    def fill(self, shape: Any, dtype: Any, data: Any) -> "_Array":
        """Keep the data where shape and dtype account for every byte."""
        sides = shape if isinstance(shape, tuple) else (shape,)
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes | bytearray):
            raise ValueError("a numpy array of other than plain bytes")
        if not 1 <= len(sides) <= 32 or any(type(side) is not int or not 0 <= side <= len(data) for side in sides):
            raise ValueError(f"a numpy array whose shape does not fit its {len(data)} bytes")
        if math.prod(sides) * _KINDS[dtype.kind] != len(data):
            raise ValueError(f"a numpy array of shape {sides} that has {len(data)} bytes")
        self._data, self._dtype = data, dtype
        return self

    def blob(self) -> bytes:
        """Return the bytes of a uint8 array."""
        if self._filled().kind != "u1":
            raise ValueError(f"an image is a numpy array of {self._dtype.kind}, not u1")
        return bytes(self._data)

    def numbers(self) -> list[int]:
        """Return the values of an integer or bool array."""
        width, order = _KINDS[self._filled().kind], self._dtype.order
        parts = (self._data[k : k + width] for k in range(0, len(self._data), width))
        return [int.from_bytes(part, order) for part in parts]

    def _filled(self) -> _Dtype:
        if not hasattr(self, "_dtype"):
            raise ValueError("a numpy array without data")
        return self._dtype


def _from_buffer(data: Any, dtype: Any, shape: Any, *_: Any) -> _Array:
    """Stand in for what protocol 5 calls."""
    return _Array().fill(shape, dtype, data)


def _scalar(dtype: Any, data: Any) -> int:
    """Stand in for what makes a numpy number, such as each True of a list of numpy.bool."""
    return _Array().fill((1,), dtype, data).numbers()[0]
