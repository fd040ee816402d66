"""Every piece of advice with a run for which it is given and one, often just beside it, for which it is not."""

import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fastface.advice import ADVICE, Facts, advise
from fastface.command import load_config
from fastface.config import RunConfig

ROOT = Path(__file__).resolve().parents[1]
# InsightFace's recipe for MS1MV2 on 8 GPUs, of which nothing is to be said.
SOUND = {
    "model": {"backbone": "iresnet50"},
    "data": {"plan": {"name": "shuffled"}},
    "optim": {"name": "sgd", "lr": 0.1, "weight_decay": 5e-4, "schedule": "polynomial", "decay_norms": True},
    "train": {"epochs": 20.0, "batch_size": 1024, "micro_batch": 128},
}
AROUND = {"num_classes": 85_742, "num_images": 5_822_653, "micro_batch": 128, "bf16": True}


def margin(
    name: str = "arcface",
    s: float = 64.0,
    sample_rate: float = 1.0,
    filter_above: float | None = None,
    **parameters: float,
) -> SimpleNamespace:
    """Return an arcface task as the configuration has it; m is 0.5 unless the margin goes by another name."""
    parameters = parameters or ({} if name in ("softmax", "normface") else {"m": 0.5})
    section = SimpleNamespace(name=name, **parameters)
    rest = {"sample_rate": sample_rate, "filter_above": filter_above, "triplet": None}
    return SimpleNamespace(name="arcface", margin=section, s=s, **rest)


def pair(loss: str = "contrastive", margin: float = 0.5, distance: str = "plain", keep: float = 1) -> SimpleNamespace:
    return SimpleNamespace(name="pair", loss=loss, margin=margin, distance=distance, keep_hardest=keep)


def facts(*, task: Any = None, around: dict[str, Any] | None = None, **sections: dict[str, Any]) -> Facts:
    merged = {name: SOUND.get(name, {}) | sections.get(name, {}) for name in SOUND | sections}
    config = RunConfig.model_validate_json(json.dumps(merged, default=str)).model_copy(
        update={"task": task or margin()}
    )
    return Facts(**{"config": config, "weights_normalisation": None, **AROUND, **(around or {})})


def fired(given: Facts) -> list[str]:
    return [row.name for row in ADVICE if row.fires(given)]


def text_of(name: str, given: Facts) -> str:
    return next(row.text for row in ADVICE if row.name == name).format(f=given)


PK = {"plan": {"name": "per-identity", "images": 4}}
ADAMW = {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "warmup_epochs": 2.0, "decay_norms": False}
VIT = {"backbone": "vit_small_patch16_224"}
TRIPLET = SimpleNamespace(kind="recognition", from_embeddings=False, name="triplet", margin=0.2)
STEP = {"schedule": "step", "step_epochs": 15.0}
MILESTONES = {"schedule": "multistep", "milestones": (30.0, 40.0)}
WEIGHTS = {"weights": Path("runs/w")}
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
ERASED = [{"name": "erase", "p": 0.5}, {"name": "colour", "p": 0.5}]

# Advice -> runs for which it is given, with a part of what is said.
GIVEN: dict[str, list[tuple[dict[str, Any], str]]] = {
    "adam_lr": [
        ({"optim": ADAMW | {"name": "adam", "lr": 0.1, "weight_decay": 1e-4}}, "optim.lr 0.1 with adam"),
        ({"optim": ADAMW | {"lr": 0.01}}, "1e-4 to 3e-4"),
    ],
    "sgd_lr_high": [
        ({"train": {"batch_size": 128}}, "here 0.013;"),
        ({"optim": {"lr": 1.7, "warmup_epochs": 2.0}, "train": {"batch_size": 16384}}, "here 0.4;"),
    ],
    "sgd_lr_low": [({"optim": {"lr": 0.009}}, "here 0.1;")],
    "transformer_sgd": [({"model": VIT, "optim": {"warmup_epochs": 2.0}}, "vit_small_patch16_224 with margin arcface")],
    "transformer_adamw": [({"model": {"backbone": "convnext_atto.d2_in1k"}, "optim": ADAMW}, "adamw at 0.001")],
    "no_warmup": [
        ({"train": {"batch_size": 2048}}, "iresnet50 and 2,048 images"),
        ({"model": VIT, "optim": ADAMW | {"lr": 1e-4, "warmup_epochs": 0.0}}, "a tenth"),
    ],
    "adamw_decay": [({"optim": ADAMW | {"weight_decay": 5e-4}}, "weight_decay 0.0005")],
    "coupled_decay": [
        ({"optim": {"weight_decay": 0.05}}, "0.05 with sgd"),
        ({"optim": ADAMW | {"name": "adam"}}, "0.05 with adam is added"),
    ],
    "insightface_decay": [({"optim": {"decay_norms": False}}, "decay_norms true")],
    "warmup_too_long": [({"optim": {"warmup_epochs": 20.0}}, "warmup_epochs 20 of 20")],
    "lr_never_falls": [
        ({"optim": STEP, "train": {"epochs": 15.0}}, "schedule step"),
        ({"optim": MILESTONES}, "after the last of 20 epochs"),
    ],
    "frozen_throughout": [({"optim": {"freeze_epochs": 20.0}}, "freeze_epochs 20 of 20")],
    "few_views": [
        ({"data": PK, "train": {"epochs": 10.0}}, "show an image 0.59 times"),
        ({"data": {"plan": PK["plan"] | {"steps_per_epoch": 10}}, "train": {"epochs": 9.0}}, "an image 0.016 times"),
    ],
    "left_out": [
        ({"around": {"num_images": 2040, "num_classes": 100}, "task": margin(s=24.0, m=0.2)}, "1,016 of 2,040")
    ],
    "scale_low": [({"task": margin(s=13.0)}, "13.6"), ({"task": margin("normface", s=1.0)}, "s 1 with 85,742")],
    "scale_high": [
        ({"task": margin(m=0.2), "around": {"num_classes": 1000, "num_images": 90_000}}, "9.8 (CVPR 2019)"),
        ({"task": margin(s=97.0)}, "16.1 (CVPR 2019)"),
    ],
    "margin_high": [
        (
            {"task": margin(s=32.0), "around": {"num_classes": 999, "num_images": 90_000}},
            "0.5 for 999 identities of 90.1",
        ),
        ({"around": {"num_images": 85_742 * 4}}, "of 4.0 images"),
        ({"task": margin("combined", m1=1.0, m2=0.5, m3=0.0), "around": {"num_images": 85_742 * 4}}, "a margin of 0.5"),
    ],
    "arcface_many": [({"around": {"num_classes": 205_990}}, "cosface, m 0.4")],
    "curricular_small": [({"task": margin("curricularface"), "model": {"backbone": "mobilefacenet"}}, "87.27")],
    "partial_fc": [({"task": margin(sample_rate=0.1)}, "sample_rate 0.1 with 85,742")],
    "shallow": [({"task": margin(m=0.2), "around": {"num_images": 2 * 85_742}}, "2.0 images an identity")],
    "no_positives": [
        ({"task": TRIPLET, "model": WEIGHTS}, "data.plan shuffled"),
        ({"task": TRIPLET, "model": WEIGHTS}, "holds 6.1 such pairs"),
    ],
    "triplet_from_scratch": [({"task": TRIPLET, "data": PK}, "98.45 after 440,000")],
    "contrastive_idle": [
        ({"task": pair(), "data": {"plan": {"name": "pairs"}}}, "a cosine of 0.875"),
        ({"task": pair(), "data": {"plan": {"name": "pairs"}}}, "lies 20 standard deviations"),
        ({"task": pair(distance="squared"), "data": {"plan": {"name": "pairs"}}}, "a cosine of 0.75"),
        ({"task": pair(distance="cosine"), "data": {"plan": {"name": "pairs"}}}, "lies 11 standard deviations"),
    ],
    "normalisation": [
        ({"model": WEIGHTS, "around": {"weights_normalisation": (127.5, 128.0)}}, "127.5 and 128: take"),
        (
            {"model": WEIGHTS, "around": {"weights_normalisation": IMAGENET}},
            "with [123.675, 116.28, 103.53] and [58.395",
        ),
    ],
    "facenet_normalisation": [({"model": WEIGHTS | {"backbone": "inception_resnet_v1"}}, "with 127.5 and 128")],
    "imagenet_normalisation": [
        ({"model": {"backbone": "resnet50", "pretrained": True}}, "take data.mean [123.675, 116.28, 103.53]")
    ],
    "bgr": [({"model": {"weights": Path("w/AdaFace_ir101_webface12m.safetensors")}}, "take BGR")],
    "small_batch_statistics": [({"around": {"micro_batch": 15}}, "sees 15 images")],
    "no_flip": [({"data": {"flip": 0.0}}, "mirroring")],
    "heavy_augmentation": [
        ({"model": {"backbone": "mobilefacenet"}, "data": {"augment": "recognition"}}, "changes an image 1.1 times"),
        ({"model": {"backbone": "mobilenetv3_small_050"}, "data": {"augment": ERASED}}, "changes an image 1.0 times"),
    ],
    "fp16": [({"train": {"precision": "fp16"}}, "precision fp16")],
}

# Advice -> runs just beside those: it is not given, and no other is either.
NOT_GIVEN: dict[str, list[dict[str, Any]]] = {
    "adam_lr": [{"optim": ADAMW | {"lr": 9e-3}}, {"optim": ADAMW | {"name": "adam", "lr": 3e-4, "weight_decay": 1e-4}}],
    "sgd_lr_high": [
        {"optim": {"lr": 0.02}, "train": {"batch_size": 128}},
        {"train": {"batch_size": 512}},
        {"optim": {"lr": 0.6, "warmup_epochs": 2.0}, "train": {"batch_size": 8192}},
    ],
    "sgd_lr_low": [
        {"optim": {"lr": 0.1, "warmup_epochs": 1.0}, "train": {"batch_size": 4096}},
        {"optim": {"lr": 0.001}, "model": WEIGHTS},
    ],
    "transformer_sgd": [{"model": VIT, "optim": {"warmup_epochs": 2.0}, "task": margin("cosface", m=0.4)}],
    "transformer_adamw": [
        {"model": VIT, "optim": ADAMW | {"lr": 1e-4}},
        {"model": VIT, "optim": ADAMW, "task": margin("cosface", m=0.4)},
    ],
    "no_warmup": [{"optim": {"warmup_epochs": 2.0, "lr": 0.2}, "train": {"batch_size": 2048}}],
    "adamw_decay": [{"optim": ADAMW}, {"optim": ADAMW | {"weight_decay": 0.0}}],
    "coupled_decay": [{"optim": {"weight_decay": 1e-4}}],
    "insightface_decay": [{"optim": {"decay_norms": False, "schedule": "cosine"}}],
    "warmup_too_long": [{"optim": {"warmup_epochs": 19.0}}],
    "lr_never_falls": [{"optim": STEP}, {"optim": MILESTONES | {"milestones": (10.0, 40.0)}}],
    "frozen_throughout": [{"optim": {"freeze_epochs": 1.0}, "model": WEIGHTS}],
    "few_views": [
        {"data": PK},
        {"data": {"plan": PK["plan"] | {"steps_per_epoch": 5_687}}, "train": {"epochs": 1.0}},
    ],
    "left_out": [{"around": {"num_images": 102_500, "num_classes": 1100}, "task": margin(s=32.0, m=0.2)}],
    "scale_low": [{"task": margin(s=14.0)}, {"task": margin("softmax", s=1.0)}],
    "scale_high": [{"around": {"num_classes": 10_572, "num_images": 490_623}}, {"task": margin("softmax", s=500.0)}],
    "margin_high": [
        {"task": margin(s=32.0, m=0.4), "around": {"num_classes": 999, "num_images": 90_000}},
        {"task": margin("cosface", s=32.0, m=0.5), "around": {"num_classes": 999, "num_images": 90_000}},
        {"task": margin("magface", l_margin=0.45, u_margin=0.8)},
    ],
    "arcface_many": [
        {"around": {"num_classes": 199_999}},
        {"task": margin("adaface", m=0.4), "around": {"num_classes": 205_990}},
    ],
    "curricular_small": [{"task": margin("curricularface")}, {"model": {"backbone": "mobilefacenet"}}],
    "partial_fc": [
        {"task": margin("cosface", sample_rate=0.1, filter_above=0.4)},
        {
            "task": margin("cosface", sample_rate=0.2, m=0.4),
            "around": {"num_classes": 2_059_906, "num_images": 42_474_557},
        },
    ],
    "shallow": [{"task": margin(m=0.2), "around": {"num_images": 3 * 85_742}}],
    "no_positives": [{"task": TRIPLET, "model": WEIGHTS, "data": PK}],
    "triplet_from_scratch": [{"task": SimpleNamespace(name="supcon"), "model": WEIGHTS, "data": PK}],
    "contrastive_idle": [
        {"task": pair("bce"), "data": {"plan": {"name": "pairs"}}},
        {"task": pair(keep=0.2), "data": {"plan": {"name": "pairs"}}},
        {"task": pair(margin=1.4), "data": {"plan": {"name": "pairs"}}},
    ],
    "normalisation": [
        {"model": WEIGHTS, "around": {"weights_normalisation": (127.5, 127.5)}},
        {"model": WEIGHTS, "around": {"weights_normalisation": ((127.5,) * 3, (127.5,) * 3)}},
        {
            "model": WEIGHTS,
            "data": {"mean": IMAGENET[0], "std": IMAGENET[1]},
            "around": {"weights_normalisation": IMAGENET},
        },
    ],
    "facenet_normalisation": [
        {"model": WEIGHTS | {"backbone": "inception_resnet_v1"}, "data": {"std": 128.0}},
        {"model": {"backbone": "inception_resnet_v1"}},
    ],
    "imagenet_normalisation": [
        {"model": {"backbone": "resnet50", "pretrained": True}, "data": {"mean": 114.5, "std": 57.6}},
        {"model": {"backbone": "resnet50", "pretrained": True}, "data": {"mean": IMAGENET[0], "std": IMAGENET[1]}},
        {"model": {"backbone": "inception_resnet_v2", "pretrained": True}},
        {"model": {"backbone": "resnet50"}},
    ],
    "bgr": [{"model": WEIGHTS}],
    "small_batch_statistics": [{"around": {"micro_batch": 16}}],
    "no_flip": [{"data": {"flip": 0.1}}],
    "heavy_augmentation": [
        {"data": {"augment": "recognition"}},
        {"model": {"backbone": "mobilefacenet"}, "data": {"augment": ERASED[:1]}},
    ],
    "fp16": [{"train": {"precision": "bf16"}}, {"train": {"precision": "fp16"}, "around": {"bf16": False}}],
}


def test_every_row_is_tested_both_ways() -> None:
    names = [row.name for row in ADVICE]
    assert len(set(names)) == len(names)
    assert set(names) == GIVEN.keys() == NOT_GIVEN.keys()


def test_of_a_sound_recipe_nothing_is_said() -> None:
    assert fired(facts()) == []


@pytest.mark.parametrize(("name", "given", "said"), [(n, g, s) for n, cases in GIVEN.items() for g, s in cases])
def test_advice_is_given(name: str, given: dict[str, Any], said: str) -> None:
    of = facts(**given)
    assert name in fired(of)
    assert said in text_of(name, of)


@pytest.mark.parametrize(("name", "given"), [(name, given) for name, cases in NOT_GIVEN.items() for given in cases])
def test_advice_is_not_given(name: str, given: dict[str, Any]) -> None:
    assert fired(facts(**given)) == []


def test_what_is_given_together() -> None:
    """E3 as published: Adam at 0.1 for triplets, from scratch, in shuffled batches of 90."""
    of = facts(
        task=TRIPLET,
        optim={"name": "adam", "lr": 0.1, "weight_decay": 1e-4} | STEP,
        train={"batch_size": 90, "micro_batch": 90, "epochs": 50.0},
        around={"num_classes": 5749, "num_images": 13_233, "micro_batch": 90},
    )
    assert fired(of) == ["adam_lr", "no_positives", "triplet_from_scratch"]
    lines = advise(of.config, num_classes=5749, num_images=13_233, micro_batch=90)
    assert len(lines) == 3
    assert lines[0].startswith("optim.lr 0.1 with adam: ")
    assert "{" not in "".join(lines)


@pytest.mark.parametrize("classes", [2, 3, 100, 85_742])
def test_scales_are_those_of_the_papers(classes: int) -> None:
    """At the least scale a perfect embedding, its class's centre at cosine 1 and the others spread evenly, gets 0.9."""
    of = facts(around={"num_classes": classes})
    others = -1 / (classes - 1)  # the cosine of C centres as far apart as can be
    s = of.least_s
    assert math.exp(s) / (math.exp(s) + (classes - 1) * math.exp(s * others)) == pytest.approx(0.9)
    assert of.adacos_s == pytest.approx(math.sqrt(2) * math.log(max(classes - 1, 2)))


# Identities, images and images a pass of the shipped configurations' data sets; what is said of them, rightly.
SHIPPED = {
    "demo": (300, 6000, 50, []),
    "lfw": (1184, 6671, 50, []),
    "lfw_finetune": (1184, 6671, 32, []),
    "folder": (5000, 100_000, 128, []),
}


@pytest.mark.parametrize("name", SHIPPED)
def test_no_false_alarm_of_what_is_shipped(name: str) -> None:
    classes, images, micro, expected = SHIPPED[name]
    config = load_config(ROOT / "configs" / f"{name}.yaml")
    known = (config.data.mean, config.data.std) if config.model.weights else None
    of = Facts(config, classes, images, micro, False, known)
    assert fired(of) == expected


def test_of_a_small_folder_the_margin_is_said_to_be_high() -> None:
    """configs/folder.yaml is for thousands of people; with 200 its margin of 0.5 is worth a word."""
    of = Facts(load_config(ROOT / "configs" / "folder.yaml"), 200, 4000, 128, False, None)
    assert fired(of) == ["margin_high"]
