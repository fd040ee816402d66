"""Configuration and classes of a liveness run -> warnings about known traps, before it trains."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from fastface.config import RunConfig
from fastface.data.attacks import ClassTargets
from fastface.data.augment.presets import operators
from fastface.liveness_settings import LivenessTask

ERASERS = ("gaussian_blur", "motion_blur", "jpeg", "low_resolution")
"""Operators that take away what is finer than a few px: moire, print dots, the edge of a screen."""


class LivenessFacts(NamedTuple):
    """A run as the rows see it; the texts take their figures from here."""

    plan: str
    live_share: float
    rarest: str
    """Of the classes to tell apart."""
    rarest_images: int
    erased: float
    """Operators of ERASERS that an image meets, on average."""
    low_resolution: float
    loss: str
    keep_hardest: float
    after_epochs: float
    num_images: int


class Row(NamedTuple):
    name: str
    fires: Callable[[LivenessFacts], bool]
    text: str
    """Takes {f.…} from the facts."""


LIVENESS_ADVICE = (
    Row(
        "erased_cues",
        lambda f: f.erased > 0.6,
        "data.augment blurs, compresses or shrinks an image {f.erased:.1f} times on average: that erases moire and "
        "print dots, by which attacks are told, and the network learns other signs; preset liveness_aggressive has 0.5",
    ),
    Row(
        "low_resolution",
        lambda f: f.low_resolution > 0,
        "data.augment low_resolution for {f.low_resolution:.0%} of the images: it leaves nothing of a screen's or a "
        "print's pattern; train networks for small faces on small images instead",
    ),
    Row(
        "unbalanced",
        lambda f: f.plan not in ("weighted", "clips") and not 1 / 3 <= f.live_share <= 2 / 3,
        "data.plan {f.plan}, and {f.live_share:.0%} of the {f.num_images:,} images are live: probabilities lean to the "
        "more frequent side, whose errors cost less (CelebA-Spoof has 1 live to 3 spoof); set data.plan.name: "
        "weighted, with columns [label, attack]",
    ),
    Row(
        "rare_class",
        lambda f: f.rarest_images < 50,
        "class {f.rarest} has {f.rarest_images} images, which a network of this size learns by heart: set "
        "task.classes: label, or get more of it",
    ),
    Row(
        "hardest_at_once",
        lambda f: f.keep_hardest < 1 and not f.after_epochs,
        "task.keep_hardest {f.keep_hardest:g} from the first step: until the network knows anything the hardest are "
        "random, or wrongly labelled; set task.keep_hardest_after_epochs to a tenth of the epochs or more",
    ),
    Row(
        "focal_and_hardest",
        lambda f: f.loss == "focal" and f.keep_hardest < 1,
        "task.loss focal and task.keep_hardest {f.keep_hardest:g} do the same thing twice, and easy images are "
        "forgotten: take one of them",
    ),
)
"""Every row has a run for which it fires, and one for which it does not, in tests/test_liveness_advice.py."""


def liveness_facts(config: RunConfig, classes: ClassTargets) -> LivenessFacts:
    """Gather what the rows ask about a run of task liveness on these classes."""
    task = config.task
    assert isinstance(task, LivenessTask)
    counts = np.bincount(classes.of_record, minlength=len(classes.names))
    drawn = operators(config.data.augment)
    return LivenessFacts(
        plan=config.data.plan.name,
        live_share=counts[0] / counts.sum(),
        rarest=classes.names[counts.argmin()],
        rarest_images=int(counts.min()),
        erased=sum(operator.p for operator in drawn if operator.name in ERASERS),
        low_resolution=sum(operator.p for operator in drawn if operator.name == "low_resolution"),
        loss=task.loss.name,
        keep_hardest=task.keep_hardest,
        after_epochs=task.keep_hardest_after_epochs,
        num_images=int(counts.sum()),
    )


def advise_liveness(config: RunConfig, classes: ClassTargets) -> list[str]:
    """Return the texts of all rows that fire for this run, in the order of the table."""
    facts = liveness_facts(config, classes)
    return [row.text.format(f=facts) for row in LIVENESS_ADVICE if row.fires(facts)]
