"""Caches: the same batches as without, to the bit, wherever the pixels are kept; files survive and are shared."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.data import cache as cache_module
from fastface.data.augment import Augment
from fastface.data.cache import FileStore
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.plans import Shuffled
from tests.data import tiny

SIZE = (tiny.WIDTH, tiny.HEIGHT)
STEPS = 15  # 40 images in batches of 8: three epochs


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    return tiny.make_shards(tmp_path_factory.mktemp("cached"))


def loader_of(index: Index, **options: object) -> Loader:
    defaults: dict = {"decoder": "torch", "micro_batch": 4, "size": SIZE, "augment": Augment(), "check_crc": True}
    return Loader(index, Shuffled(index.num_samples, 8, seed=2), **(defaults | options))


def rows(loader: Loader, start: int = 0, stop: int = STEPS) -> list[tuple]:
    return [
        (b.step, b.micro, b.records.tolist(), b.labels.tolist(), b.images.numpy().tobytes())
        for b in loader.batches(start, stop)
    ]


@pytest.fixture(params=["memory", "device", "file"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "cache") if request.param == "file" else request.param


@pytest.mark.parametrize(
    "options", [{}, {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}, {"output": "uint8"}], ids=str
)
@pytest.mark.parametrize("threads", [1, 3])
def test_a_cache_changes_no_bit(index: Index, place: str, options: dict, threads: int) -> None:
    with loader_of(index, **options) as loader:
        plain = rows(loader)
    with loader_of(index, **options, cache=place, threads=threads) as loader:
        assert loader.cache is not None
        assert loader.cache.share == 0
        assert rows(loader) == plain
        assert loader.cache.share == 1
        assert rows(loader, 4, 9) == plain[8:18]


def test_from_the_second_epoch_on_nothing_is_read_or_decoded(index: Index, place: str) -> None:
    with loader_of(index, cache=place) as loader:
        first = rows(loader, 0, 5)
        loader.reader.views = None  # type: ignore[method-assign,assignment] - whoever reads now, fails
        assert len(rows(loader, 5, 15)) == 20
        assert rows(loader, 0, 5) == first


def test_bad_images_are_replaced_and_not_kept(index: Index, tmp_path: Path, place: str) -> None:
    import shutil

    shutil.copytree(index.path, tmp_path / "damaged")
    damaged = Index.open(tmp_path / "damaged")
    for record in (7, 8):
        path, start = damaged.shard_path(int(damaged.shard[record])), int(damaged.offset[record])
        data = bytearray(path.read_bytes())
        data[start : start + 9] = b"\0" * 9
        path.write_bytes(data)
    with loader_of(damaged, max_damaged=0.5) as loader:
        plain = rows(loader)
    with loader_of(damaged, max_damaged=0.5, cache=place) as loader:
        assert rows(loader) == plain
        assert loader.cache is not None
        assert np.flatnonzero(~loader.cache.store.filled).tolist() == [7, 8]
        assert sorted(found.record for found in loader.damage.news()) == [7, 8]


def test_a_file_is_found_again(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with loader_of(index, cache=str(folder)) as loader:
        plain = rows(loader)
    with loader_of(index, cache=str(folder)) as loader:
        assert loader.cache is not None
        assert loader.cache.share == 1
        loader.reader.views = None  # type: ignore[method-assign,assignment]
        assert rows(loader) == plain
    (file,) = folder.glob("*.planes")
    assert file.stat().st_size == len(index) * (3 * tiny.WIDTH * tiny.HEIGHT + 1)
    assert file.name.startswith(index.dataset_id[:16])


def test_half_a_file_of_another_boot_is_started_anew(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a power cut pixels may be lost that are marked as there."""
    folder, boot = tmp_path / "cache", tmp_path / "boot_id"
    monkeypatch.setattr(cache_module, "BOOT", boot)
    shares = []
    for name, steps in [("first", 2), ("first", 2), ("second", 5), ("third", 1)]:
        boot.write_text(name)
        with loader_of(index, cache=str(folder)) as loader:
            assert loader.cache is not None
            shares.append(loader.cache.share)
            rows(loader, 0, steps)
    assert shares == [0, 0.4, 0, 1]  # same boot: kept; another: anew; complete: kept for good


def test_a_file_of_the_wrong_length_is_made_anew(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    with loader_of(index, cache=str(folder)) as loader:
        plain = rows(loader)
    (file,) = folder.glob("*.planes")
    file.write_bytes(file.read_bytes()[:-1])
    with loader_of(index, cache=str(folder)) as loader:
        assert rows(loader) == plain


def test_a_killed_process_leaves_a_good_file(index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    code = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom fastface.data.index import Index\n"
        "from tests.data.test_cache import loader_of\n"
        "loader = loader_of(Index.open(sys.argv[1]), cache=sys.argv[2], threads=2)\n"
        "for batch in loader.batches():\n    if batch.step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code, str(index.path), str(folder)], env=environment, check=False)
    assert done.returncode == -9
    with loader_of(index) as loader:
        plain = rows(loader)
    with loader_of(index, cache=str(folder)) as loader:
        assert loader.cache is not None
        assert 0.5 < loader.cache.share <= 1
        assert rows(loader) == plain


def test_several_openers_share_one_file(index: Index, tmp_path: Path) -> None:
    with loader_of(index, cache=str(tmp_path)) as one, loader_of(index, cache=str(tmp_path)) as two:
        plain = rows(one, 0, 5)
        assert two.cache is not None
        assert two.cache.share == 1
        two.reader.views = None  # type: ignore[method-assign,assignment]
        assert rows(two, 0, 5) == plain
    assert isinstance(two.cache.store, FileStore)


def test_what_does_not_fit_is_refused_with_numbers(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = len(index) * 3 * tiny.WIDTH * tiny.HEIGHT
    monkeypatch.setattr(cache_module, "_free_memory", lambda: needed * 2.4)
    with loader_of(index, cache="auto") as loader:
        assert loader.cache is not None
    with pytest.raises(ValueError, match=r"data\.cache memory: the decoded images take .* GB, more than 80%"):
        loader_of(index, cache="memory", processes=2)
    with loader_of(index, cache="auto", processes=2) as loader:
        assert loader.cache is None


def test_a_misspelt_place_is_no_folder(index: Index) -> None:
    with pytest.raises(ValueError, match=r"data\.cache 'memroy', perhaps you meant 'memory'; choose none.*\./memroy"):
        loader_of(index, cache="memroy")
    assert not Path("memroy").exists()


@pytest.mark.gpu
def test_on_a_gpu_the_device_keeps_them(index: Index) -> None:
    with loader_of(index) as loader:
        plain = [b.images.clone() for b in loader.batches(0, STEPS)]
    with loader_of(index, device="cuda", cache="auto", threads=3) as loader:
        for got, want in zip(loader.batches(0, STEPS), plain, strict=True):
            assert torch.equal(got.images.cpu(), want)
        assert loader.cache is not None
        assert loader.cache.store.planes.is_cuda  # type: ignore[attr-defined]


def test_the_header_says_what_the_file_is(index: Index, tmp_path: Path) -> None:
    with loader_of(index, cache=str(tmp_path)) as loader:
        rows(loader, 0, 1)
    (header,) = tmp_path.glob("*.json")
    assert json.loads(header.read_text()) | {"boot": ""} == {"boot": "", "images": 40, "size": [24, 16]}
