"""Fixtures for all tests: real pictures, no network, and skips that say why."""

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

# Tests are tiny and share the cores: one thread each is fastest, and keeps sums in one order. Set before any
# library reads it, and left alone where the caller chose.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest

OFFLINE = Path(__file__).parent / "offline"


@pytest.fixture(scope="session")
def data() -> Path:
    """Give the folder of real pictures that FASTFACE_TEST_DATA names; skip where it names none."""
    folder = os.environ.get("FASTFACE_TEST_DATA")
    if not folder:
        pytest.skip("needs real pictures: set FASTFACE_TEST_DATA to their folder")
    path = Path(folder)
    assert path.is_dir(), f"FASTFACE_TEST_DATA is {folder!r}, which is not a folder"
    return path


@pytest.fixture
def no_network(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Refuse every connection that leaves this machine, and fail at the end if one was tried.

    Gives the file that lists the attempts. Processes the test starts are guarded too, if they get this one's
    environment.
    """
    log = tmp_path_factory.mktemp("network") / "attempts.txt"
    log.touch()
    inherited = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(OFFLINE), *([inherited] if inherited else [])]))
    _install_guard()
    monkeypatch.setenv("FASTFACE_TEST_NETWORK_LOG", str(log))
    yield log
    tried = log.read_text()
    assert not tried, f"no network was allowed, and this was tried:\n{tried}"


def _install_guard() -> None:
    """Add the guard to this process, once: an audit hook stays, idle while the log's name is unset."""
    name = "fastface_offline_guard"
    if name in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(name, OFFLINE / "sitecustomize.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked gpu without a CUDA device, and those marked dali without DALI."""
    gpu = [item for item in items if item.get_closest_marker("gpu")]
    dali = [item for item in items if item.get_closest_marker("dali")]
    if gpu and not _has_cuda():
        for item in gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))
    if dali and not _has_dali():
        for item in dali:
            item.add_marker(pytest.mark.skip(reason="needs DALI: pip install nvidia-dali-cuda130"))


def _has_cuda() -> bool:
    import torch  # here, so that a run without gpu tests does not pay for it

    return torch.cuda.is_available()


def _has_dali() -> bool:
    return importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
