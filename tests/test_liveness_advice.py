"""Every piece of advice on liveness with a run for which it is given, and one beside it for which it is not."""

import json
from typing import Any

import numpy as np
import pytest

from fastface.config import RunConfig
from fastface.data.attacks import ClassTargets
from fastface.liveness_advice import LIVENESS_ADVICE, advise_liveness, liveness_facts

BLUR = [{"name": "gaussian_blur", "p": 0.4}, {"name": "jpeg", "p": 0.3}]
SMALL = [{"name": "low_resolution", "p": 0.1}]
Run = tuple[dict[str, Any], dict[str, Any], tuple[int, ...]]  # task, data, images of each class
BALANCED = {"plan": {"name": "weighted"}}
CASES: dict[str, tuple[Run, Run]] = {
    "erased_cues": (
        ({}, BALANCED | {"augment": BLUR}, (500, 500)),
        ({}, BALANCED | {"augment": "liveness_aggressive"}, (500, 500)),
    ),
    "low_resolution": (
        ({}, BALANCED | {"augment": SMALL}, (500, 500)),
        ({}, BALANCED | {"augment": "liveness"}, (500, 500)),
    ),
    "unbalanced": (({}, {}, (200, 800)), ({}, BALANCED, (200, 800))),
    "rare_class": (
        ({"classes": "attack"}, BALANCED, (500, 400, 49)),
        ({"classes": "attack"}, BALANCED, (500, 400, 50)),
    ),
    "hardest_at_once": (
        ({"keep_hardest": 0.7}, BALANCED, (500, 500)),
        ({"keep_hardest": 0.7, "keep_hardest_after_epochs": 1.0}, BALANCED, (500, 500)),
    ),
    "focal_and_hardest": (
        ({"keep_hardest": 0.7, "keep_hardest_after_epochs": 1.0, "loss": {"name": "focal"}}, BALANCED, (500, 500)),
        ({"loss": {"name": "focal"}}, BALANCED, (500, 500)),
    ),
}


def build(run: Run) -> tuple[RunConfig, ClassTargets]:
    task, data, counts = run
    config = {"task": {"name": "liveness"} | task, "data": data}
    names = ["live", "print", "replay"][: len(counts)]
    classes = ClassTargets(names, np.repeat(np.arange(len(counts)), counts).astype(np.int16))
    return RunConfig.model_validate_json(json.dumps(config)), classes


def test_every_row_is_here() -> None:
    assert [row.name for row in LIVENESS_ADVICE] == list(CASES)


@pytest.mark.parametrize("name", CASES)
def test_advice_is_given_where_it_belongs(name: str) -> None:
    fires, rests = CASES[name]
    row = next(row for row in LIVENESS_ADVICE if row.name == name)
    assert row.fires(liveness_facts(*build(fires)))
    assert not row.fires(liveness_facts(*build(rests)))
    assert row.text.format(f=liveness_facts(*build(fires))) in advise_liveness(*build(fires))
    assert advise_liveness(*build(rests)) == []
