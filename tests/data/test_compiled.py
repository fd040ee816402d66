"""Kernels compile where they can, and say nothing where they cannot: their callers know a slower way."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from fastface.data.compiled import Kernel, kernel


def twice(values: np.ndarray) -> None:
    for i in range(len(values)):
        values[i] *= 2


SIGNATURE = "void(int64[::1])"


def test_a_kernel_runs_compiled() -> None:
    numba = pytest.importorskip("numba")
    function = kernel(SIGNATURE)(twice).function
    assert function is not None
    assert function.signatures == [(numba.types.Array(numba.types.int64, 1, "C"),)]
    values = np.arange(5)
    function(values)
    assert values.tolist() == [0, 2, 4, 6, 8]


def test_without_numba_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)  # what an import finds where a package is missing
    assert Kernel(SIGNATURE, twice).function is None


def test_switched_off_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    numba = pytest.importorskip("numba")
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    assert Kernel(SIGNATURE, twice).function is None


def test_it_compiles_where_nothing_can_be_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    source = tmp_path / "loops.py"
    source.write_text("def twice(values):\n    for i in range(len(values)):\n        values[i] *= 2\n")
    (tmp_path / "__pycache__").touch()  # a file where numba wants a folder: this stops root as well
    monkeypatch.setenv("XDG_CACHE_HOME", str(source / "cache"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    spec = importlib.util.spec_from_file_location("loops", source)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with pytest.warns(UserWarning, match="NUMBA_CACHE_DIR"):
        function = Kernel(SIGNATURE, module.twice).function
    values = np.arange(3)
    assert function is not None
    function(values)
    assert values.tolist() == [0, 2, 4]
