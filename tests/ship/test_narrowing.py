"""A trained run -> fp16 and int8 beside fp32: what they hold, when they are refused, which card is read."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from fastface.card import Card
from fastface.config import RunConfig
from fastface.data.image_sets import open_images
from fastface.evaluation import unit
from fastface.evaluators import evaluate_on
from fastface.export import main
from fastface.metrics.verification import calibrate
from fastface.predictor import find_checkpoint, load_embedder
from fastface.ship import narrowing
from fastface.ship.every_kind import export_model
from fastface.ship.export import Exported, calibration_pairs
from fastface.ship.narrowing import Exports, export_all
from fastface.ship.onnx_graph import OPSET, opset_of, spell_out_prelu
from fastface.ship.quantisation import draw_images, to_int8
from fastface.verifier import Verifier
from tests.training import run_here, write_config, write_people

EVALUATION = "eval: {every_epochs: null, sets: {val: {images: SHARDS, pairs: 300}}}"


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("people"))


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train two steps of a small transformer, which tells these people apart as it begins."""
    folder = tmp_path_factory.mktemp("run")
    config = write_config(folder, shards, EVALUATION.replace("SHARDS", str(shards)))
    return run_here(config, "--model.backbone", "test_vit", "--model.dropout", "0", "--train.max_steps", "2")


@pytest.fixture(scope="module")
def made(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Exports:
    return export_all(run, ["fp16", "int8"], out=tmp_path_factory.mktemp("out"), max_drop=0.5)


@pytest.fixture(scope="module")
def faces(shards: Path) -> np.ndarray:
    images = open_images(shards)
    return np.stack([images.load(i) for i in range(len(images))])


def test_embeddings_stay_near_those_of_fp32(made: Exports, faces: np.ndarray) -> None:
    whole = unit(load_embedder(made.whole.path)(faces))
    fp16, int8 = (unit(load_embedder(file.path)(faces)) for file in made.narrower)
    assert (fp16 * whole).sum(axis=1).min() > 0.9999
    assert 0.95 < (int8 * whole).sum(axis=1).min() < 0.99999
    sizes = [path.stat().st_size for path in (made.whole.path, *(file.path for file in made.narrower))]
    assert sizes[1] < 0.6 * sizes[0]
    assert sizes[2] < 0.6 * sizes[0]


def test_the_files_are_what_they_say(made: Exports) -> None:
    assert made.refused == []
    kinds = {}
    for path in (made.whole.path, *(file.path for file in made.narrower)):
        model = onnx.load(path)
        onnx.checker.check_model(model, full_check=True)
        assert b"site-packages" not in path.read_bytes(), "a stack trace of the machine that exported"
        card = Card.beside(path)
        assert card.opset == opset_of(path) == OPSET
        assert {prop.key: prop.value for prop in model.metadata_props} == {"fastface.precision": card.precision}
        ends = [*model.graph.input, *model.graph.output]
        assert {end.type.tensor_type.elem_type for end in ends} == {onnx.TensorProto.FLOAT}
        assert [end.type.tensor_type.shape.dim[0].dim_param for end in ends] == ["batch", "batch"]
        kinds[card.precision] = {onnx.TensorProto.DataType.Name(w.data_type) for w in model.graph.initializer if w.dims}
    assert {"FLOAT16", "INT8"} & kinds["fp32"] == set()
    assert "FLOAT16" in kinds["fp16"]
    assert {"INT8", "INT32"} <= kinds["int8"]  # weights, and the biases in their scale
    int8 = {node.op_type for node in onnx.load(made.narrower[1].path).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= int8


@pytest.mark.parametrize("place", [0, 1])
def test_any_batch_gives_the_same_rows(made: Exports, faces: np.ndarray, place: int) -> None:
    embedder = load_embedder(made.narrower[place].path)
    together = embedder(faces[:17])
    alone = np.concatenate([embedder(faces[i : i + 1]) for i in range(17)])
    assert np.abs(unit(together) - unit(alone)).max() < 1e-3


def test_each_card_has_thresholds_of_its_files_own_scores(made: Exports, run: Path) -> None:
    config = RunConfig.model_validate_json(json.dumps(find_checkpoint(run).state["config"]))
    for file in made.narrower:
        card = Card.beside(file.path)
        assert card == file.card
        assert card.quantisation["max_drop"] == 0.5
        figures = [drop["figure"] for drop in card.quantisation["drops"]]
        assert figures == ["accuracy", "TAR at FMR 0.01", "TAR at FMR 0.001"]
        pairs = calibration_pairs(config, card, None, None)
        assert pairs is not None
        result = evaluate_on(pairs, load_embedder(file.path), batch=32)
        expected = [point.threshold for point in calibrate(result.scores, result.same)]
        assert [t.threshold for t in card.thresholds] == pytest.approx(expected, abs=1e-6)
    assert made.narrower[1].card.thresholds != made.whole.card.thresholds
    assert "48 of 48 images" in made.narrower[1].card.quantisation["images"]


def test_the_card_of_another_file_is_refused(made: Exports, tmp_path: Path) -> None:
    """An int8 file whose card got lost must not take the thresholds of the fp32 file beside it."""
    folder = tmp_path / "copy"
    shutil.copytree(made.whole.path.parent, folder)
    assert load_embedder(folder / "model.int8.onnx").card.precision == "int8"
    (folder / "model.int8.json").unlink()
    with pytest.raises(ValueError, match=r"is int8, and the card beside it speaks of fp32: .*model\.int8\.json"):
        Verifier(folder / "model.int8.onnx")
    (folder / "model.onnx").rename(folder / "renamed.onnx")  # model.json has always done for any name
    assert load_embedder(folder / "renamed.onnx").card.precision == "fp32"
    (folder / "model.json").unlink()
    with pytest.raises(ValueError, match=r"model\.json is missing"):
        load_embedder(folder / "renamed.onnx")
    (folder / "model.fp16.onnx").write_bytes(b"hello")
    with pytest.raises(ValueError, match="not an ONNX file that onnxruntime reads"):
        load_embedder(folder / "model.fp16.onnx")


@pytest.fixture
def exported_before(made: Exports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let fp32's files be copied from where they were made: exporting takes seconds."""

    def copied(model: Path, *, out: Path, **_: object) -> Exported:
        out.mkdir(exist_ok=True)
        for name in ("model.onnx", "model.json"):
            shutil.copy(made.whole.path.with_name(name), out)
        return made.whole._replace(path=out / "model.onnx")

    monkeypatch.setattr(narrowing, "export", copied)


@pytest.mark.usefixtures("exported_before")
def test_a_ruined_model_is_refused_with_its_figures(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ranges set by black pictures clip everything that a face would give."""
    (tmp_path / "black").mkdir()
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "black" / "0.png")
    words = ["--checkpoint", run, "--out", tmp_path / "out", "--precision", "int8", "--int8-images", tmp_path / "black"]
    monkeypatch.setattr(sys, "argv", ["export.py", *map(str, words)])
    assert main() == 2
    printed = capsys.readouterr()
    assert "int8 refused, and not written" in printed.err
    assert "0.01 is accepted (--max-drop)" in printed.err
    assert "McNemar p" in printed.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.onnx"]
    assert "model.onnx" in printed.out


@pytest.mark.usefixtures("exported_before")
def test_embeddings_that_are_not_finite_are_refused(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflowing(source: Path, out: Path) -> None:
        model = onnx.load(source)
        model.graph.node[-1].output[0] = "finite"
        model.graph.initializer.append(numpy_helper.from_array(np.array(np.inf, np.float32), "infinite"))
        model.graph.node.append(onnx.helper.make_node("Mul", ["finite", "infinite"], ["embeddings"]))
        onnx.save(model, out)

    monkeypatch.setattr(narrowing, "to_fp16", overflowing)
    made = export_all(run, ["fp16"], out=tmp_path, max_drop=0.99)
    assert made.narrower == []
    assert "No pair has a finite score" in made.refused[0]
    assert not (tmp_path / "model.fp16.onnx").exists()


def test_what_is_missing_is_named_before_anything_is_written(run: Path, shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / "0.jpg").write_bytes(b"\xff\xd8 cut")
    with pytest.raises(ValueError, match=r"0\.jpg of .*some, drawn to set int8's ranges, cannot be read"):
        export_all(run, ["int8"], out=out, int8_images=tmp_path / "some")
    with pytest.raises(ValueError, match="does not exist"):
        export_all(run, ["int8"], out=out, int8_images=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--max-drop 1\.5 is not a rate"):
        export_model(run, ["int8"], out=out, max_drop=1.5)
    with pytest.raises(ValueError, match="at least one image"):
        export_model(run, ["int8"], out=out, int8_samples=0)
    away = shards.rename(shards.with_name("away"))
    try:
        with pytest.raises(ValueError, match="set"):
            export_all(run, ["int8"], out=out)
    finally:
        away.rename(shards)
    assert not out.exists()


def test_a_damaged_training_shard_is_named(shards: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(shards, copy)
    shard = copy / "shard-000000.tar"
    content = bytearray(shard.read_bytes())
    content[600:700] = bytes(100)
    shard.write_bytes(content)
    images = open_images(copy)
    card = Card(input_size=(32, 32), mean=127.5, std=127.5, embedding_size=16)
    with pytest.raises(ValueError, match=r"shard-000000\.tar"):
        draw_images(images, card.input_size, 100)
    with pytest.raises(ValueError, match=r"is 32x32, the model takes 40x40: give others with --int8-images"):
        draw_images(open_images(shards), (40, 40), 5)


def test_the_draw_is_seeded_and_without_repetition(shards: Path) -> None:
    images = open_images(shards)
    card = Card(input_size=(32, 32), mean=127.5, std=127.5, embedding_size=16)
    drawn = draw_images(images, card.input_size, 20)
    everything = [images.load(i).tobytes() for i in range(len(images))]
    ids = [everything.index(picture.tobytes()) for picture in drawn.images]
    assert len(set(ids)) == 20
    assert draw_images(images, card.input_size, 20).images.tobytes() == drawn.images.tobytes()
    assert draw_images(images, card.input_size, 20, seed=1).images.tobytes() != drawn.images.tobytes()


def test_prelu_spelled_out_gives_the_same_bits(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    slope = rng.normal(0, 1, (5, 1, 1)).astype(np.float32)
    info = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, ["batch", 5, 6, 6]) for n in ("x", "y")]
    node = onnx.helper.make_node("PRelu", ["x", "slope"], ["y"], name="prelu")
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(slope, "slope")])
    path = tmp_path / "prelu.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10), path)
    spell_out_prelu(path)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["Relu", "Min", "Mul", "Add"]
    x = rng.normal(0, 1, (3, 5, 6, 6)).astype(np.float32)
    x[0, 0, 0, :3] = 0.0, np.inf, -np.inf
    found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    assert np.array_equal(np.asarray(found), np.where(x >= 0, x, slope * x))


def test_int8_computes_what_its_scales_say(made: Exports, faces: np.ndarray, tmp_path: Path) -> None:
    """One convolution, recomputed with rounded weights and inputs in float64."""
    rng = np.random.default_rng(1)
    weight = rng.normal(0, 1, (4, 3, 3, 3)).astype(np.float32) * np.float32([[[[1]]], [[[10]]], [[[0.1]]], [[[3]]]])
    ends = [("images", ["batch", 3, 32, 32]), ("embeddings", ["batch", 4, 30, 30])]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends]
    node = onnx.helper.make_node("Conv", ["images", "w"], ["embeddings"], name="conv")
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], [numpy_helper.from_array(weight, "w")])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save(model, tmp_path / "conv.onnx")
    prepare = load_embedder(made.whole.path).prepare
    to_int8(tmp_path / "conv.onnx", tmp_path / "int8.onnx", faces, prepare)
    x = prepare(faces[:4]).astype(np.float64)
    step = (max(prepare(faces).max(), 0) - min(prepare(faces).min(), 0)) / 255
    x = np.round(x / step) * step
    scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127
    rounded = np.round(weight / scale) * scale
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))  # [B, 3, 30, 30, 3, 3]
    expected = np.einsum("bchwij,ocij->bohw", windows, rounded)
    session = onnxruntime.InferenceSession(str(tmp_path / "int8.onnx"), providers=["CPUExecutionProvider"])
    found = np.asarray(session.run(None, {"images": prepare(faces[:4])})[0])
    span = np.ptp(found)
    assert np.abs(found - expected).max() < 1.5 * span / 255  # the output is rounded too, and each rounding may differ
    assert len(np.unique(found)) <= 256


@pytest.mark.usefixtures("exported_before")
def test_fp32_alone_is_plain_export(run: Path, made: Exports, tmp_path: Path) -> None:
    alone = export_all(run, ["fp32"], out=tmp_path)
    assert alone == (made.whole._replace(path=tmp_path / "model.onnx"), [], [])


@pytest.mark.parametrize(
    ("operator", "weight", "reason"),
    [("Conv", np.nan, "are not finite"), ("Conv", 3e38, "are not finite"), ("Relu", None, "nothing that is computed")],
)
def test_what_cannot_be_quantised_is_said(operator: str, weight: float | None, reason: str, tmp_path: Path) -> None:
    ends = [("images", ["batch", 3, 8, 8]), ("embeddings", ["batch", 3, None, None])]
    info = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in ends]
    inputs = ["images"] if weight is None else ["images", "w"]
    node = onnx.helper.make_node(operator, inputs, ["embeddings"], name="node")
    weights = [numpy_helper.from_array(np.full((3, 3, 3, 3), weight, np.float32), "w")] if weight is not None else []
    graph = onnx.helper.make_graph([node], "g", info[:1], info[1:], weights)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", OPSET)], ir_version=10)
    onnx.save(model, tmp_path / "in.onnx")
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 3), np.uint8)

    def prepare(batch: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(batch.transpose(0, 3, 1, 2)).astype(np.float32)

    with pytest.raises(ValueError, match=reason):
        to_int8(tmp_path / "in.onnx", tmp_path / "out.onnx", images, prepare)
