"""A mean and a std for each colour, from the YAML to the ONNX file: every part of a run does the same arithmetic."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from fastface.card import Card
from fastface.command import Command, load_config
from fastface.predictor import find_checkpoint, load_backbone_from, load_embedder, load_network
from fastface.run import build_run
from fastface.ship.export import export
from tests.training import assert_same_bits, run_here, weights, write_people, write_task

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ARCFACE = "{name: arcface, s: 16}"
BASE = (
    f"train: {{max_steps: 2}}\ncheckpoint: {{every_steps: 1}}\ndata: {{mean: {list(MEAN)}, std: {list(STD)}}}\n"
    "optim: {lr: 0.02, warmup_epochs: 0}\n"
)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("colours") / "people")


@pytest.fixture(scope="module")
def config(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_task(tmp_path_factory.mktemp("config"), shards, ARCFACE, BASE)


@pytest.fixture(scope="module")
def run(config: Path) -> Path:
    return run_here(config)


@pytest.mark.parametrize("options", [["--data.output", "uint8"], ["--data.cache", "memory"]])
def test_how_images_arrive_changes_no_bit(run: Path, config: Path, options: list[str]) -> None:
    found = run_here(config, *options)
    assert_same_bits(weights(found, 2), weights(run, 2))


def test_it_changes_what_is_learned_and_resuming_keeps_it(run: Path, config: Path, tmp_path: Path) -> None:
    one = run_here(config, "--data.mean", "127.5", "--data.std", "127.5")
    assert (one / "metrics.jsonl").read_text() != (run / "metrics.jsonl").read_text()
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    shutil.rmtree(copy / "checkpoints" / "step-00000002")
    run_here(config, resume=str(copy))
    assert_same_bits(weights(copy, 2), weights(run, 2))
    with pytest.raises(ValueError, match=r"data\.mean: \[123\.675, 116\.28, 103\.53\] -> 114\.5"):
        run_here(config, "--data.mean", "114.5", resume=str(copy))


def test_the_embedder_and_the_onnx_file_do_as_training_did(run: Path, tmp_path: Path) -> None:
    made = export(run, out=tmp_path)
    text = json.loads((tmp_path / "model.json").read_text())
    assert (text["mean"], text["std"]) == (list(MEAN), list(STD))
    assert Card.read(tmp_path / "model.json") == made.card
    pixels = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)
    network = load_network(find_checkpoint(run)).eval()
    planes = torch.from_numpy(pixels).permute(0, 3, 1, 2).double()
    images = (planes - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(3, 1, 1)
    with torch.no_grad():
        expected = network(images.float()).numpy()
    for model in (run, tmp_path / "model.onnx"):
        np.testing.assert_allclose(load_embedder(model)(pixels), expected, rtol=1e-4, atol=1e-5)


def test_older_cards_stay_valid(run: Path) -> None:
    state = find_checkpoint(run).state["card"]
    for mean, std in ((127.5, 128.0), (list(MEAN), 128.0)):
        card = Card.model_validate(state | {"mean": mean, "std": std})
        assert card.mean == (mean if isinstance(mean, float) else MEAN)
        assert card.std == std


def test_who_goes_on_from_such_weights_hears_of_their_normalisation(run: Path, config: Path) -> None:
    built = build_run(Command(load_config(config, overrides=["--model.weights", str(run)]), "same", None))
    assert not [note for note in built.notes if "model.weights was trained with" in note]
    assert load_backbone_from(run, built.task).normalisation == (MEAN, STD)
    built.loader.close()
    other = ["--model.weights", str(run), "--data.std", "57.6"]
    built = build_run(Command(load_config(config, overrides=other), "other", None))
    said = [note for note in built.notes if "model.weights was trained with" in note]
    assert said == [
        "advice: data.mean and std are [123.675, 116.28, 103.53] and 57.6, model.weights was trained with "
        "[123.675, 116.28, 103.53] and [58.395, 57.12, 57.375]: take those"
    ]
    built.loader.close()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: {std: [58.0, 0.0, 57.0]}", "std [58, 0, 57] must be above 0"),
        ("data: {std: 0.0}", "std 0 must be above 0"),
        ("data: {mean: [1.0, 2.0]}", "data.mean"),
    ],
)
def test_what_is_neither_one_number_nor_three_is_refused(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ValueError, match=r".") as caught:
        load_config(tmp_path / "bad.yaml")
    assert expected in str(caught.value)


def test_the_command_line_takes_one_number_or_three(tmp_path: Path) -> None:
    (tmp_path / "plain.yaml").write_text("seed: 1")
    assert load_config(tmp_path / "plain.yaml", overrides=["--data.mean", "114.5"]).data.mean == 114.5
    three = load_config(tmp_path / "plain.yaml", overrides=["--data.mean", *map(str, MEAN)])
    assert three.data.mean == MEAN
    (tmp_path / "again.yaml").write_text(three.dump())
    assert load_config(tmp_path / "again.yaml") == three
