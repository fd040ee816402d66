"""Checkpoints: what is written comes back to the bit, damage is found and named, a kill loses nothing committed."""

import errno
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import nn

from fastface import checkpoint
from fastface.checkpoint import newest, save, step_folder, sweep, verify
from fastface.resharding import restore_optimizer, whole_optimizer


def write(folder: Path, step: int, *, keep: int = 3, protect: tuple[int, ...] = ()) -> Path:
    model = {"w": torch.full((3, 2), float(step)), "n": torch.tensor(step)}
    return save(
        folder,
        step,
        model,
        {"w/momentum_buffer": torch.randn(3, 2)},
        {"a": [1, 2]},
        keep=keep,
        protect=protect,
    )


def test_round_trip_and_rotation(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4, 5):
        write(tmp_path, step, keep=2, protect=(2,))
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_folder(s) for s in (2, 4, 5)]
    found = newest(tmp_path)
    assert found.state["step"] == 5
    assert found.state["a"] == [1, 2]
    assert torch.equal(found.model["w"], torch.full((3, 2), 5.0))
    assert found.skipped == []


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
def test_any_damage_is_found_and_the_one_before_is_taken(tmp_path: Path, name: str, how: str) -> None:
    write(tmp_path, 1)
    file = write(tmp_path, 2) / name
    content = bytearray(file.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1 if name != "manifest.json" else 0x80
        file.write_bytes(content)
    elif how == "cut":
        file.write_bytes(content[:-3])
    else:
        file.unlink()
    found = newest(tmp_path)
    assert found.state["step"] == 1
    assert len(found.skipped) == 1
    assert name in found.skipped[0] or "damaged" in found.skipped[0]


def test_a_damaged_folder_makes_room_for_a_new_save(tmp_path: Path) -> None:
    (write(tmp_path, 2) / "state.json").unlink()
    verify(write(tmp_path, 2))
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_a_save_is_never_rotated_away_by_later_folders(tmp_path: Path) -> None:
    for step in (9, 12):
        write(tmp_path, step, keep=5)
    (tmp_path / step_folder(12) / "state.json").unlink()
    write(tmp_path, 10, keep=1)
    assert newest(tmp_path).state["step"] == 10
    assert checkpoint.put_aside(tmp_path, 10) == [step_folder(12)]
    assert newest(tmp_path).skipped == []


def test_a_copy_beside_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    write(tmp_path, 3).rename(tmp_path / "step-00000003-copy")
    write(tmp_path, 2)
    assert newest(tmp_path).state["step"] == 2


def test_a_full_disk_is_an_oserror_with_a_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise SafetensorError('I/O error: Os { code: 28, message: "No space left on device (os error 28)" }')

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(OSError, match="no space left") as caught:
        write(tmp_path, 1)
    assert caught.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_nothing_to_load_says_why(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no complete checkpoint"):
        newest(tmp_path)
    (write(tmp_path, 7) / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        newest(tmp_path)


def test_a_format_of_the_future_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    state = json.loads((path / "state.json").read_text())
    (path / "state.json").write_text(json.dumps({**state, "format": 99}))
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["state.json"] = {
        "size": (path / "state.json").stat().st_size,
        "sha256": checkpoint._sha256(path / "state.json"),
    }
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(ValueError, match="format 99"):
        checkpoint.load(path)


def test_foreign_folders_are_not_deleted(tmp_path: Path) -> None:
    (tmp_path / step_folder(0)).mkdir()
    for step in (1, 2, 3):
        write(tmp_path, step, keep=1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [step_folder(0), step_folder(3)]


def test_a_read_only_or_missing_place_is_an_error_that_names_it(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(OSError, match="cannot write checkpoint"):
        write(blocked, 1)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_optimizer_state_comes_back_to_the_bit(tmp_path: Path, name: str) -> None:
    def build() -> tuple[nn.Module, torch.optim.Optimizer]:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
        if name == "sgd":
            return net, torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        return net, torch.optim.AdamW(net.parameters(), lr=0.1)

    def steps(net: nn.Module, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for i in range(first, last):
            torch.manual_seed(i)
            net(torch.randn(4, 3, 4, 4)).square().sum().backward()
            optimizer.step()
            optimizer.zero_grad()

    straight, optimizer = build()
    steps(straight, optimizer, 0, 6)
    first, optimizer = build()
    steps(first, optimizer, 0, 3)
    save(tmp_path, 3, first.state_dict(), whole_optimizer(optimizer, first), {}, keep=1)
    second, optimizer = build()
    found = newest(tmp_path)
    second.load_state_dict(found.model)
    restore_optimizer(optimizer, second, found.optimizer)
    steps(second, optimizer, 3, 6)
    for (key, a), b in zip(straight.state_dict().items(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b), key


def test_optimizer_state_of_another_model_is_refused() -> None:
    net = nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"other\.weight"):
        restore_optimizer(torch.optim.SGD(net.parameters(), lr=1), net, {"other.weight/momentum_buffer": torch.ones(2)})


def killed_save(folder: Path, die_at: int, calls: Path) -> int:
    """Save step 2 in a forked child that kills itself before its die_at-th system call; return its exit status."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    count = 0

    def dying(real: Callable[..., object]) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            nonlocal count
            count += 1
            if count == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*args, **kwargs)

        return call

    os.fsync, os.rename = dying(os.fsync), dying(os.rename)  # type: ignore[assignment]
    checkpoint.save_file = dying(checkpoint.save_file)  # type: ignore[assignment]
    checkpoint.shutil.rmtree = dying(checkpoint.shutil.rmtree)  # type: ignore[assignment]
    save(folder, 2, {"w": torch.ones(4)}, {}, {}, keep=1)
    calls.write_text(str(count))
    os._exit(0)


def test_killed_at_every_system_call_of_a_save_one_checkpoint_is_always_whole(tmp_path: Path) -> None:
    def before(name: str) -> Path:
        save(tmp_path / name, 1, {"w": torch.zeros(4)}, {}, {}, keep=1)
        return tmp_path / name

    assert killed_save(before("whole"), 0, tmp_path / "calls") == 0
    calls = int((tmp_path / "calls").read_text())
    assert calls >= 10
    outcomes = set()
    for n in range(1, calls + 1):
        folder = before(str(n))
        assert os.WTERMSIG(killed_save(folder, n, tmp_path / "none")) == signal.SIGKILL
        found = newest(folder)
        outcomes.add(found.state["step"])
        assert float(found.model["w"][0]) == found.state["step"] - 1
        sweep(folder)
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
    assert outcomes == {1, 2}
