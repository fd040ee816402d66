"""Every recipe says what its source says, is advised as expected, and goes on to the bit beside smoke/tiny.yaml."""

import importlib.util
import re
import shlex
import shutil
from functools import reduce
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from fastface.advice import ADVICE
from fastface.advice_facts import Facts
from fastface.command import load_config, parse_command
from fastface.conversion.convert import convert
from fastface.conversion.options import Options
from fastface.data.index import Index
from fastface.foreign import KINDS
from fastface.tasks import build_task
from tests.training import assert_same_bits, losses, run_here, weights

ROOT = Path(__file__).resolve().parent.parent
FILES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml"))
RECIPES_THERE = {Path(name).stem for name in FILES if Path(name).parent.name == "configs"}
MEASURED = {
    "demo",
    "demo_liveness",
    "demo_temporal",
    "distill",
    "folder",
    "fusion",
    "fusion_lfw",
    "lfw",
    "lfw_finetune",
    "match",
    "temporal",
}  # those whose header has figures of ours; `make demo` runs the first three
LIVENESS = {"liveness", "liveness_mobilenetv3", "liveness_minifasnet"}
"""Trained beside smoke/attacks.yaml."""


class Recipe(NamedTuple):
    identities: int
    images: int
    """Of the set it is for."""
    says: str
    """What the source says: option=value, ..."""
    advice: str = ""
    smoke: str = ""
    """What it needs beside tiny.yaml: further files of configs/smoke, and options."""
    steps: int = 6


MS1MV2, MS1MV3, GLINT, WEBFACE = (85742, 5822653), (93431, 5179510), (360232, 17091657), (2059906, 42474557)
FOLDER, LFW = (1000, 20000), (1184, 6671)
INSIGHT = (
    "task.s=64.0 optim.name=sgd optim.momentum=0.9 optim.schedule=polynomial optim.decay_norms=True train.epochs=20.0 "
    "train.batch_size=1024 optim.clip_norm=5.0 optim.clip_parts=network"
)
FACETRAIN = (
    "seed=42 model.dropout=0.4 task.s=64.0 optim.lr=0.1 optim.momentum=0.9 optim.nesterov=True optim.clip_norm=5.0 "
    "optim.milestones=(10,16,22) optim.warmup_epochs=1.0 train.epochs=25.0 train.batch_size=256"
)
ARCFACE, COSFACE = (f"task.margin.name={name} task.margin.m={m}" for name, m in (("arcface", 0.5), ("cosface", 0.4)))
PRETRAINED, WEIGHTS = "--model.pretrained PRETRAINED", "--model.weights RUN"
TWO_EPOCHS = 12  # and what starts late has started: tiny.yaml leaves 5 steps an epoch, pairs.yaml 3

# fmt: off
RECIPES = {
    "resnet50_arcface": Recipe(
        8631, 3141890,  # VGGFace2's; its own set is not described
        "task.margin.m=0.5 task.s=64.0 optim.name=adamw optim.lr=0.001 optim.weight_decay=0.0001 optim.clip_norm=1.0 "
        "optim.warmup_epochs=3.0 optim.freeze_epochs=2.0 optim.backbone_lr_scale=0.1 train.epochs=30.0 "
        "train.batch_size=256 data.size=(224,224) eval.sets.val.pairs=100000",
        "adamw_decay", PRETRAINED, TWO_EPOCHS,
    ),
    "resnet50_pair": Recipe(
        8631, 3141890,
        "task.scale_logits=64.0 task.bias=0.0 task.learn_scale=False data.plan.pairs_per_epoch=60000 optim.lr=0.001 "
        "data.plan.genuine=0.5 optim.warmup_epochs=3.0 train.epochs=40.0 train.batch_size=512",
        "adamw_decay", f"pairs.yaml {PRETRAINED}", TWO_EPOCHS,
    ),
    "rec_resnet50": Recipe(
        *MS1MV2, f"{FACETRAIN} optim.weight_decay=0.0005", "", "../objectives/arcface.yaml --model.stem auto", 4
    ),
    "rec_fastcontextface": Recipe(
        *MS1MV2, f"{FACETRAIN} optim.weight_decay=4e-05",
        "", "../objectives/cosface.yaml --model.backbone fastcontextface --train.batch_size 16 --train.micro_batch 8",
        4,
    ),
    "lfw_triplet_published": Recipe(
        *LFW,
        "task.margin=0.2 task.distance=squared task.chunk=90 model.dropout=0.6 data.plan.images=40 optim.name=adam "
        "train.batch_size=1800 data.plan.steps_per_epoch=1000 optim.lr=0.1 optim.weight_decay=0.0001 optim.gamma=0.1 "
        "optim.step_epochs=15.0 optim.clip_norm=None train.epochs=50.0 checkpoint.keep_every_epochs=10.0",
        "adam_lr triplet_from_scratch no_flip", "triplets.yaml",
    ),
    "lfw_triplet": Recipe(
        *LFW, "task.margin=0.2 optim.step_epochs=15.0 train.epochs=50.0", "", f"triplets.yaml {WEIGHTS}"
    ),
    "ms1mv3_iresnet50": Recipe(*MS1MV3, f"{INSIGHT} {ARCFACE} optim.lr=0.1 optim.weight_decay=0.0005"),
    "ms1mv3_iresnet100": Recipe(*MS1MV3, f"{INSIGHT} {ARCFACE} optim.lr=0.1 optim.weight_decay=0.0005"),
    "ms1mv3_mobilefacenet": Recipe(
        *MS1MV3, f"{INSIGHT} {ARCFACE} optim.lr=0.1 optim.weight_decay=0.0001".replace("epochs=20", "epochs=40")
    ),
    "glint360k_iresnet100": Recipe(*GLINT, f"{INSIGHT} {COSFACE} optim.lr=0.1 optim.weight_decay=0.0001"),
    "webface42m_iresnet50": Recipe(
        *WEBFACE,
        f"{INSIGHT} {COSFACE} task.sample_rate=0.2 optim.lr=0.4 optim.warmup_epochs=2.0 optim.weight_decay=0.0005"
        .replace("size=1024", "size=4096"),
    ),
    "webface42m_iresnet100": Recipe(
        *WEBFACE,
        f"{INSIGHT} {COSFACE} task.sample_rate=0.2 optim.lr=0.1 optim.warmup_epochs=0.0 optim.weight_decay=0.0005",
    ),
    "webface42m_vit": Recipe(
        *WEBFACE,
        f"{COSFACE} task.sample_rate=0.3 optim.name=adamw optim.lr=0.001 optim.weight_decay=0.1 "
        "optim.warmup_epochs=4.0 train.epochs=40.0 train.batch_size=24576 train.micro_batch=256 "
        "optim.clip_parts=network",
        "", "--model.backbone test_vit --model.stem auto",
    ),
    "noisy_iresnet50": Recipe(
        617970, 12720066,
        f"{INSIGHT} {COSFACE} task.sample_rate=0.1 task.filter_above=0.4 task.sub_centres=3 optim.lr=0.1 "
        "optim.weight_decay=0.0005 optim.warmup_epochs=2.0",
    ),
    "adaface_iresnet100": Recipe(
        *MS1MV2,
        "task.margin.m=0.4 task.margin.h=0.333 task.margin.t_alpha=0.01 task.s=64.0 optim.lr=0.1 optim.momentum=0.9 "
        "optim.weight_decay=0.0005 optim.decay_norms=False optim.milestones=(12,20,24) optim.gamma=0.1 "
        "optim.clip_norm=None train.epochs=26.0 train.batch_size=512",
    ),
    "finetune": Recipe(*FOLDER, "optim.backbone_lr_scale=0.1 optim.freeze_epochs=1.0", "", WEIGHTS, TWO_EPOCHS),
    "finetune_facenet": Recipe(*FOLDER, "task.margin=0.2 data.std=128.0", "", f"triplets.yaml {WEIGHTS}"),
}
# fmt: on


def test_every_recipe_is_here() -> None:
    assert set(RECIPES) | MEASURED | LIVENESS == RECIPES_THERE


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_its_source_says(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    for item in RECIPES[name].says.split():
        path, value = item.split("=")
        found = reduce(lambda at, key: at[key] if isinstance(at, dict) else getattr(at, key), path.split("."), config)
        numbers = f"({','.join(f'{n:g}' for n in found)})" if isinstance(found, tuple) else str(found)
        assert numbers == value, path


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_advised_as_its_header_says(name: str) -> None:
    recipe, config = RECIPES[name], load_config(ROOT / "configs" / f"{name}.yaml")
    micro = config.train.micro_batch or config.train.batch_size // 8
    facts = Facts(config, recipe.identities, recipe.images, micro, True, None)
    assert {row.name for row in ADVICE if row.fires(facts)} == set(recipe.advice.split())


@pytest.mark.parametrize("name", RECIPES)
def test_the_network_of_a_recipe_can_be_built(name: str) -> None:
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    model = config.model.model_copy(update={"pretrained": False})  # nothing is fetched
    with torch.device("meta"):
        task = build_task(config.task, model, config.data, num_classes=10, seed=0)
        width, height = config.data.size
        embedding = task.backbone.eval()(torch.zeros(1, 3, height, width))
    assert embedding.shape == (1, 512)


# Headers: commands that could be typed.


def header_of(name: str) -> list[str]:
    text = (ROOT / name).read_text(encoding="utf-8").replace(" \\\n#", "")
    return [line.removeprefix("# ") for line in text.splitlines() if line.startswith("#")]


def tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", FILES)
def test_commands_of_a_header_can_be_typed(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    for detector in ("deploy.prototxt", "res10_300x300_ssd_iter_140000.caffemodel"):
        (tmp_path / detector).touch()
    trained = False
    for line in header_of(name):
        found = re.search(r"(?:python|accelerate launch) ((?:tools|fastface)/\w+\.py .*)", line)
        if not found and not line.startswith("    --"):
            continue
        script, *words = shlex.split(found[1] if found else f"fastface/train.py --config {name} {line}")
        if script == "fastface/train.py":
            parse_command(words)
            trained |= name in words
        elif script == "tools/make_shards.py":
            assert tool("make_shards").parse(words)["out"].parts[0] == "shards"
        elif script == "tools/make_faces.py":
            tool("make_faces")._parser().parse_args(words)
        elif script == "tools/import_weights.py":
            assert words[0] in KINDS
        else:
            known = (ROOT / script).read_text(encoding="utf-8")
            assert all(f'"{word}"' in known for word in words if word.startswith("--"))
    assert trained, "a header says how its file is trained with"


@pytest.mark.parametrize("name", RECIPES)
def test_a_header_says_where_it_is_from_and_what_was_run(name: str) -> None:
    text = " ".join(line.strip() for line in header_of(f"configs/{name}.yaml"))
    for part in ("Shards: python tools/make_shards.py", "Published", "Not run here at full size."):
        assert part in text
    shards = load_config(ROOT / "configs" / f"{name}.yaml").data.shards
    made = re.search(r"make_shards\.py [^#]*?--out (\S+)", text)
    assert made
    assert str(shards).startswith(made[1])


def test_the_table_lists_every_file() -> None:
    listed = set(
        re.findall(r"\[[^\]]+\]\(([\w/]+\.yaml)\)", (ROOT / "configs" / "README.md").read_text(encoding="utf-8"))
    )
    assert listed == {name.removeprefix("configs/") for name in FILES}


# Smoke: each beside tiny.yaml, on synthetic faces.


@pytest.fixture(autouse=True)
def without_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw nothing: tests/test_run_picture.py does, and it is four fifths of the time of such a short run."""
    monkeypatch.setattr("fastface.trainer.try_draw", lambda *_, **__: None)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the set of tiny.yaml's header: 50 people to train on and 10 others, 4 images each."""
    folder = tmp_path_factory.mktemp("smoke")
    tool("make_faces").main(
        ["--out", str(folder / "faces"), *"--identities 60 --images 4 --size 56 --workers 1".split()]
    )
    convert(Options("folder", folder / "faces", folder / "set", workers=1, split={"train": 0.84, "val": 0.16}))
    index = Index.open(folder / "set" / "train")
    assert (index.num_classes, index.num_samples) == (50, 200)
    return folder / "set"


@pytest.fixture(scope="module")
def start(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What recipes start from: a run of a recipe, and a file of timm's weights as timm would fetch it."""
    folder = tmp_path_factory.mktemp("start")
    save_file(timm.create_model("test_resnet").state_dict(), folder / "timm.safetensors")
    run = run_here(smoke(folder, shards, "ms1mv3_iresnet50", {}), "--train.max_steps", "2")
    return {"RUN": str(run), "PRETRAINED": str(folder / "timm.safetensors")}


def smoke(folder: Path, shards: Path, name: str, start: dict[str, str]) -> Path:
    """Write a recipe beside tiny.yaml, on these shards, as one file."""
    words = RECIPES[name].smoke.split()
    files = [name + ".yaml", "smoke/tiny.yaml", *(f"smoke/{word}" for word in words if word.endswith(".yaml"))]
    options = [start.get(word, word) for word in words if not word.endswith(".yaml")]
    steps = RECIPES[name].steps
    options += shlex.split(
        f"--out {folder}/runs --data.shards {shards}/train --eval.sets.val.images {shards}/val --runtime.threads 1 "
        f"--log.tensorboard False --train.max_steps {steps} --checkpoint.every_steps {steps // 2}"
    )
    merged = folder / f"{name}.yaml"
    merged.write_text(load_config(*(ROOT / "configs" / file for file in files), overrides=options).dump())
    return merged


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_goes_on_to_the_bit(name: str, shards: Path, start: dict[str, str], tmp_path: Path) -> None:
    assert_a_run_goes_on_to_the_bit(smoke(tmp_path, shards, name, start), RECIPES[name].steps, tmp_path)


def assert_a_run_goes_on_to_the_bit(config: Path, steps: int, folder: Path) -> None:
    straight = run_here(config)
    assert list(losses(straight)) == list(range(1, steps + 1))
    assert np.isfinite(list(losses(straight).values())).all()
    assert steps >= 4
    copy = folder / "again"
    shutil.copytree(straight, copy)
    shutil.rmtree(copy / "checkpoints" / f"step-{steps:08d}")
    run_here(config, resume=str(copy))
    assert f"resuming from {copy}/checkpoints/step-{steps // 2:08d}" in (copy / "log.txt").read_text()
    assert (copy / "metrics.jsonl").read_text() == (straight / "metrics.jsonl").read_text()
    assert_same_bits(weights(copy, steps), weights(straight, steps))


@pytest.fixture(scope="module")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the set of smoke/attacks.yaml's header, smaller."""
    folder = tmp_path_factory.mktemp("attacks")
    words = f"--out {folder}/faces --identities 10 --images 2 --size 56 --attacks print,replay --workers 1"
    tool("make_faces").main(words.split())
    convert(Options("liveness", folder / "faces", folder / "set", workers=1, split={"train": 0.8, "val": 0.2}))
    return folder / "set"


@pytest.mark.parametrize("name", sorted(LIVENESS))
def test_a_recipe_of_liveness_trains_and_goes_on_to_the_bit(name: str, attacks: Path, tmp_path: Path) -> None:
    files = [ROOT / "configs" / f"{name}.yaml", ROOT / "configs" / "smoke" / "attacks.yaml"]
    options = (
        f"--out {tmp_path}/runs --data.shards {attacks}/train --eval.sets.val.images {attacks}/val --runtime.threads 1 "
        "--log.tensorboard False --train.max_steps 6 --checkpoint.every_steps 3"
    )
    (tmp_path / "merged.yaml").write_text(load_config(*files, overrides=options.split()).dump())
    assert_a_run_goes_on_to_the_bit(tmp_path / "merged.yaml", 6, tmp_path)


def test_what_is_loaded_waits_and_then_learns_slowly(shards: Path, start: dict[str, str], tmp_path: Path) -> None:
    run = run_here(smoke(tmp_path, shards, "resnet50_arcface", start), "--checkpoint.every_steps", "4")
    before, early, late = (weights(run, step) for step in (4, 8, TWO_EPOCHS))
    body = [name for name in before if name.startswith("backbone.net.") and name.endswith("weight")]
    assert body
    assert all(bool((before[name] == early[name]).all()) for name in body)
    assert any(bool((early[name] != late[name]).any()) for name in body)
