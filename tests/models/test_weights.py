"""Foreign weights files: what is read, what is refused and why, and strict loading."""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from fastface.models import Backbone, build_backbone, load_backbone_weights, read_foreign


@pytest.fixture(scope="module")
def network() -> Backbone:
    torch.manual_seed(0)
    return build_backbone("mobilefacenet", embedding_size=8, input_size=(32, 32)).eval()


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


SMALL = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3)}


@pytest.mark.parametrize(
    "content",
    [
        SMALL,
        OrderedDict(SMALL),
        {"epoch": 3, "state_dict": SMALL, "optimizer": {"lr": 0.1}},
        {"net_state_dict": SMALL},
        {"model": {"state_dict": SMALL}},
        {f"module.{k}": v for k, v in SMALL.items()},
        {f"_orig_mod.module.{k}": v for k, v in SMALL.items()},
        {f"module._orig_mod.{k}": v for k, v in SMALL.items()},
    ],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_are_unwrapped(tmp_path: Path, content: dict[str, object], legacy: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    assert same(read_foreign(path), SMALL)


def test_safetensors_by_content_not_by_name(tmp_path: Path) -> None:
    path = tmp_path / "weights.bin"
    save_file(SMALL, path)
    assert same(read_foreign(path), SMALL)


def test_key_names_another_part(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1)}, "state_dict_ema": SMALL}, tmp_path / "w.pt")
    assert same(read_foreign(tmp_path / "w.pt", key="state_dict_ema"), SMALL)
    with pytest.raises(ValueError, match="'ema'; it has: state_dict, state_dict_ema"):
        read_foreign(tmp_path / "w.pt", key="ema")


@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "evil.pt", tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (target,)  # type: ignore[return-value]

    if zipped:
        torch.save({"state_dict": Touch()}, path)
    else:
        path.write_bytes(pickle.dumps({"state_dict": Touch()}))
    with pytest.raises(ValueError, match=r"evil\.pt cannot be read as plain tensors"):
        read_foreign(path)
    assert not target.exists()
    pickle.loads(pickle.dumps(Touch()))  # the trap is real: unpickled without restriction it does act
    assert target.exists()


def test_whole_modules_are_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    with pytest.raises(ValueError, match=r"Python objects \(torch\.nn\.modules\.linear\.Linear\)"):
        read_foreign(tmp_path / "module.pt")


def test_torchscript_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "script.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "code/__torch__.py", "version"):
            archive.writestr(f"script/{name}", b"")
    with pytest.raises(ValueError, match="it is a TorchScript program"):
        read_foreign(tmp_path / "script.pt")


@pytest.mark.parametrize("keep", [0, 1, 20, 300, -1])
@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_cut_files_are_value_errors(tmp_path: Path, keep: int, kind: str) -> None:
    path = tmp_path / "w"
    big = {"a": torch.zeros(400)}
    if kind == "safetensors":
        save_file(big, path)
    else:
        torch.save(big, path, _use_new_zipfile_serialization=kind == "zip")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="w "):
        read_foreign(path)


def test_sizes_are_bounded(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(5000)}, tmp_path / "w.pt")
    with pytest.raises(ValueError, match="more than the 10000 allowed"):
        read_foreign(tmp_path / "w.pt", max_bytes=10_000)
    # A view that claims a terabyte of one stored number.
    torch.save({"a": torch.zeros(1).expand(1 << 38)}, tmp_path / "view.pt")
    with pytest.raises(ValueError, match="its tensors need 1099511627776 bytes"):
        read_foreign(tmp_path / "view.pt")
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(5_000_000))
    with pytest.raises(ValueError, match="unpacks to 5000000 bytes"):
        read_foreign(tmp_path / "bomb.pt", max_bytes=1_000_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([torch.zeros(1)], "holds a list"),
        ({}, "it has: nothing"),
        ({"epoch": 1, "weights": {}}, "it has: epoch, weights"),
        ({"state_dict": {}}, "holds no named tensors"),
        ({"a": torch.zeros(2).to_sparse()}, "a is sparse"),
        ({3: torch.zeros(2)}, "3 is a Tensor"),
    ],
)
def test_other_contents_are_explained(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=message):
        read_foreign(tmp_path / "w.pt")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a file"):
        read_foreign(tmp_path / "none.pt")


def test_round_trip_gives_equal_embeddings(tmp_path: Path, network: Backbone) -> None:
    torch.save(network.state_dict(), tmp_path / "w.pt")
    other = build_backbone("mobilefacenet", embedding_size=8, input_size=(32, 32)).eval()
    images = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 32, 32)).astype(np.float32))
    with torch.no_grad():
        assert not torch.equal(other(images), network(images))
        load_backbone_weights(other, read_foreign(tmp_path / "w.pt"))
        assert torch.equal(other(images), network(images))


def test_half_precision_and_missing_counters_are_accepted(network: Backbone) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in network.state_dict().items()}
    state = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    other = build_backbone("mobilefacenet", embedding_size=8, input_size=(32, 32))
    load_backbone_weights(other, state)
    own = other.state_dict()
    assert own["last.conv.weight"].dtype == torch.float32
    assert torch.equal(own["last.conv.weight"], state["last.conv.weight"].float())


def test_differences_are_listed(network: Backbone) -> None:
    state = dict(network.state_dict())
    gone = [name for name in state if name.startswith("blocks.3.")][:7]
    for name in gone:
        del state[name]
    state["head.weight"] = torch.zeros(3)
    state["stem.prelu.weight"] = torch.zeros(63)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit") as caught:
        load_backbone_weights(network, state, "some.pth")
    message = str(caught.value)
    missing = [name for name in gone if not name.endswith("num_batches_tracked")]
    assert message.startswith("the weights of some.pth do not fit mobilefacenet (embedding_size 8, input 32x32): ")
    assert f" {len(missing)} missing: " in message
    assert all(name in message for name in missing[:5])
    assert all(name not in message for name in missing[5:])
    assert "1 unexpected: head.weight" in message
    assert "1 of another shape: stem.prelu.weight (63,) instead of (64,)" in message
    assert same(before, network.state_dict())


def test_nan_is_refused(network: Backbone) -> None:
    state = {k: v.clone() for k, v in network.state_dict().items()}
    state["last.bn.bias"][3] = float("nan")
    with pytest.raises(ValueError, match=r"1 tensors with NaN or infinity: last\.bn\.bias"):
        load_backbone_weights(network, state)
