"""timm's checkpoints from files: the whole body filled, the classifier left out, everything else refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

from fastface.models import Backbone, build_backbone, describe
from fastface.models.timm_backbone import TimmBackbone

NAMES = ("resnet10t", "mobilenetv3_small_050", "vit_tiny_patch16_224", "repvit_m0_9")


@pytest.fixture(scope="module")
def published() -> dict[str, dict[str, Tensor]]:
    """Make state dicts of whole timm networks, as they are published, with values that no network starts with."""
    found = {}
    for name in NAMES:
        torch.manual_seed(7)
        state = timm.create_model(name).state_dict()
        found[name] = {k: v + 0.01 * torch.rand_like(v) if v.is_floating_point() else v + 5 for k, v in state.items()}
    return found


def build(name: str, path: Path | str, **options: object) -> Backbone:
    return build_backbone(name, embedding_size=8, pretrained=path, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv3_small_050"])
@pytest.mark.parametrize("form", ["pth", "safetensors", "wrapped"])
def test_body_is_filled_and_classifier_named(
    published: dict[str, dict[str, Tensor]], name: str, form: str, tmp_path: Path
) -> None:
    state, path = published[name], tmp_path / f"w.{form}"
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state} if form == "wrapped" else state, path)
    network = build(name, path)
    assert isinstance(network, TimmBackbone)
    own = network.net.state_dict()
    assert len(own) > 80
    for key, value in own.items():
        assert torch.equal(value, state[key]), key
    head = "fc" if name == "resnet10t" else "classifier"
    assert network.notes == [f"{path} fills {name} but for its classifier ({head}.bias, {head}.weight)"]
    assert network.notes[0] in describe(network)
    assert "state_dict" not in network.net.pretrained_cfg


def test_stem_edit_is_the_same_with_weights(published: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    torch.save(published["resnet10t"], tmp_path / "w.pth")
    for stem in ("auto", "keep"):
        ours = build("resnet10t", tmp_path / "w.pth", stem=stem, input_size=(64, 64))
        bare = build_backbone("resnet10t", embedding_size=8, stem=stem, input_size=(64, 64))
        assert isinstance(ours, TimmBackbone)
        assert isinstance(bare, TimmBackbone)
        assert ours.final_map == bare.final_map
        assert ours.state_dict().keys() == bare.state_dict().keys()


def test_position_embeddings_and_patches_take_the_size_of_the_face(
    published: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    state = published["vit_tiny_patch16_224"]
    torch.save(state, tmp_path / "w.pth")
    network = build("vit_tiny_patch16_224", str(tmp_path / "w.pth"), input_size=(64, 48))
    assert isinstance(network, TimmBackbone)
    own = network.net.state_dict()
    expected = resample_abs_pos_embed(state["pos_embed"], new_size=[6, 8], old_size=[14, 14], num_prefix_tokens=1)
    torch.testing.assert_close(own["pos_embed"], expected)
    assert own["patch_embed.proj.weight"].shape == (192, 3, 8, 8)
    unchanged = [key for key in own if key not in ("pos_embed", "patch_embed.proj.weight")]
    assert all(torch.equal(own[key], state[key]) for key in unchanged)
    # A flat image looks to the halved patch as it did to the whole one.
    flat = torch.nn.functional.conv2d(torch.ones(1, 3, 8, 8), own["patch_embed.proj.weight"])
    whole = torch.nn.functional.conv2d(torch.ones(1, 3, 16, 16), state["patch_embed.proj.weight"])
    torch.testing.assert_close(flat, whole, rtol=0.05, atol=0.05)


def test_classifiers_with_their_own_norm_are_left_out_whole(
    published: dict[str, dict[str, Tensor]], tmp_path: Path
) -> None:
    torch.save(published["repvit_m0_9"], tmp_path / "w.pth")
    network = build("repvit_m0_9", tmp_path / "w.pth")
    assert "head.head.bn.running_mean" in network.notes[0]
    assert "head.head_dist.l.weight" in network.notes[0]


def test_a_file_without_classifier_loads(published: dict[str, dict[str, Tensor]], tmp_path: Path) -> None:
    body = {key: value for key, value in published["resnet10t"].items() if not key.startswith("fc.")}
    torch.save(body, tmp_path / "w.pth")
    assert build("resnet10t", tmp_path / "w.pth").notes[0].endswith("classifier (the file has none)")


@pytest.mark.usefixtures("no_network")
def test_a_classifier_alone_is_refused_and_nothing_is_fetched_instead(tmp_path: Path) -> None:
    torch.save({"fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"nothing but a classifier of resnet10t: fc\.bias, fc\.weight"):
        build("resnet10t", tmp_path / "w.pth")


def test_a_new_classifier_on_a_network_published_without_one_is_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("eva02_tiny_patch14_224", num_classes=5).state_dict(), tmp_path / "w.pth")
    network = build("eva02_tiny_patch14_224", tmp_path / "w.pth")
    assert network.notes[0].endswith("classifier (head.bias, head.weight)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"1 missing: layer2\.0\.bn1\.weight"),
        ("extra", r"1 unexpected: layer9\.weight"),
        ("shape", r"size mismatch for conv1\.0\.weight"),
        ("nan", r"1 tensors with NaN or infinity: bn1\.bias"),
        ("other network", "missing: .*unexpected: "),
    ],
)
def test_anything_but_this_networks_body_is_refused(
    published: dict[str, dict[str, Tensor]], change: str, message: str, tmp_path: Path
) -> None:
    state = dict(published["mobilenetv3_small_050" if change == "other network" else "resnet10t"])
    if change == "missing":
        del state["layer2.0.bn1.weight"]
    elif change == "extra":
        state["layer9.weight"] = torch.zeros(2)
    elif change == "shape":
        state["conv1.0.weight"] = torch.zeros(4, 3, 3, 3)
    elif change == "nan":
        state["bn1.bias"] = torch.full_like(state["bn1.bias"], float("nan"))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=rf"w\.pth .*{message}"):
        build("resnet10t", tmp_path / "w.pth")


def test_code_in_the_file_is_refused_and_never_run(tmp_path: Path) -> None:
    path, target = tmp_path / "evil.pth", tmp_path / "ran"

    class Touch:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (target,)  # type: ignore[return-value]

    torch.save({"state_dict": Touch()}, path)
    with pytest.raises(ValueError, match=r"evil\.pth cannot be read as plain tensors"):
        build("resnet10t", path)
    assert not target.exists()


def test_what_timm_cannot_build_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match="timm cannot build 'resmlp_12_224'"):
        build("resmlp_12_224", tmp_path / "w.pth")


def test_patches_that_timm_does_not_resize_can_be_kept(tmp_path: Path) -> None:
    torch.manual_seed(0)
    torch.save(timm.create_model("cait_xxs24_224", depth=2).state_dict(), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"keep timm's patches with stem: keep\.$"):
        build("cait_xxs24_224", tmp_path / "w.pth")


def test_our_own_networks_take_no_file_of_timm(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="iresnet18 has no weights to download and is none of timm's"):
        build("iresnet18", tmp_path / "w.pth")
