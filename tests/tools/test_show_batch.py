"""tools/show_batch.py: the sheet shows what the loader would deliver, and says where it is."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from fastface.data.augment import Augment
from fastface.data.augment.presets import operators
from fastface.data.index import Index
from fastface.data.loader import Loader
from fastface.data.plan import Slots, slot_keys
from tests.data import tiny

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("show_batch", ROOT / "tools" / "show_batch.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["show_batch"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_shards(tmp_path_factory.mktemp("tiny")).path


def test_the_sheet_holds_images_as_stored_and_under_their_keys(tool: ModuleType, shards: Path, tmp_path: Path) -> None:
    index = Index.open(shards)
    out = tmp_path / "new" / "sheet.png"
    options = tool.parse(["--shards", str(shards), "--augment", "detection", "--rows", "5", "--columns", "3"])
    data, seed = tool.settings(options)
    sheet = tool.make_sheet(data, seed, 5, 3)
    assert [images.shape for images in sheet.images] == [(5, tiny.HEIGHT, tiny.WIDTH, 3)] * 4

    class Plan:
        unit, batch_size, steps_per_epoch = 1, 5, 1

        def __getitem__(self, step: int) -> Slots:
            slots = tool.Shuffled(len(index), 5, seed)[0]
            return slots._replace(keys=slot_keys(seed, 0, 15)[step::3])

    plain = {"decoder": "torch", "size": (tiny.WIDTH, tiny.HEIGHT), "micro_batch": 5, "mean": 0.0, "std": 1.0}
    with Loader(index, Plan(), augment=Augment(0), **plain) as loader:
        stored = next(iter(loader.batches(0, 1))).images.permute(0, 2, 3, 1).numpy()
    assert np.array_equal(sheet.images[0], stored)
    with Loader(index, Plan(), augment=Augment(0.5, operators("detection")), **plain) as loader:
        for column, batch in enumerate(loader.batches(0, 3), 1):
            assert np.array_equal(sheet.images[column], batch.images.permute(0, 2, 3, 1).numpy())
    for row in range(5):
        for column in range(1, 4):
            same = np.array_equal(sheet.images[column][row], sheet.images[0][row])
            assert same or sheet.captions[row][column]
    assert tool.main(["--shards", str(shards), "--augment", "detection", "--zoom", "2", "--out", str(out)]) == 0
    with Image.open(out) as picture:
        assert picture.size[0] == 4 + 11 * (2 * tiny.WIDTH + 4)


def test_a_configuration_decides_and_the_command_line_overrides(
    tool: ModuleType, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(f"seed: 7\ndata: {{shards: '{shards}', size: [24, 16], augment: [{{name: grey, p: 1.0}}]}}")
    data, seed = tool.settings(tool.parse(["--config", str(config)]))
    assert (seed, data.size, [operator.name for operator in data.augment]) == (7, (24, 16), ["grey"])
    data, seed = tool.settings(tool.parse(["--config", str(config), "--augment", "jpeg", "--seed", "3"]))
    assert (seed, data.augment[0].name, data.augment[0].p) == (3, "jpeg", 1.0)
    out = tmp_path / "b.png"
    assert tool.main(["--config", str(config), "--out", str(out), "--rows", "3", "--columns", "1"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: 3 images")


def test_scales_and_other_sizes_show(tool: ModuleType, shards: Path, tmp_path: Path) -> None:
    config, out = tmp_path / "a.yaml", tmp_path / "c.png"
    sizes = "size: [20, 20], resize: true, scales: [[20, 20], [30, 26]]"
    config.write_text(f"data: {{shards: '{shards}', augment: detection, {sizes}}}")
    data, seed = tool.settings(tool.parse(["--config", str(config)]))
    sheet = tool.make_sheet(data, seed, 2, 8)
    assert sheet.images[0].shape == (2, 20, 20, 3)
    assert {images.shape for images in sheet.images[1:]} == {(2, 20, 20, 3), (2, 26, 30, 3)}
    assert tool.main(["--config", str(config), "--out", str(out), "--columns", "8"]) == 0
    with Image.open(out) as picture:
        assert picture.size[0] == 4 + 9 * (30 + 4)


def test_what_is_wrong_is_said(tool: ModuleType, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool.main(["--shards", str(shards), "--augment", "recogition"]) == 2
    assert "perhaps you meant 'recognition'" in capsys.readouterr().err
    assert tool.main(["--shards", str(shards / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    for arguments in ([], ["--shards", str(shards), "--rows", "0"]):
        with pytest.raises(SystemExit) as stopped:
            tool.main(arguments)
        assert stopped.value.code == 2
