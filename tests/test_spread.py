"""However a step is spread over micro-batches and processes, every objective learns the same."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file

from tests.embedded import write_rows
from tests.spread_worker import do_all
from tests.training import assert_same_bits, launch_jobs, log_lines, losses, weights, write_people, write_task

pytestmark = [pytest.mark.slow, pytest.mark.dist]

STEPS, MIDDLE = 20, 5
IDENTITIES = "data: {plan: {name: per-identity, images: 4}}"
PAIRS = "data: {plan: {name: pairs}}"
ROWS = "data: {shards: null, embeddings: ROWS}"
ARCFACE = "{name: arcface, s: 16, margin: {name: arcface, m: 0.2}}"
FUSED_SETS = "{name: fusion, network: mlp, hidden: [8], embedding_size: 8, set_size: 2, pooling: attention, "
OBJECTIVES: dict[str, tuple[str, ...]] = {
    "arcface": (ARCFACE,),
    "cosface": ("{name: arcface, s: 16, margin: {name: cosface, m: 0.2}}",),
    "adaface": ("{name: arcface, s: 16, margin: {name: adaface, m: 0.2, t_alpha: 0.3}}",),
    "curricularface": ("{name: arcface, s: 16, margin: {name: curricularface, m: 0.2, alpha: 0.3}}",),
    "magface": ("{name: arcface, s: 16, margin: {name: magface, l_norm: 1, u_norm: 6, lambda_g: 1}}",),
    "softmax": ("{name: arcface, margin: {name: softmax}}",),
    "sampled": (ARCFACE.replace("s:", "sample_rate: 0.5, sub_centres: 2, s:"), "optim: {name: adam, lr: 0.001}"),
    "clipped": (ARCFACE, "optim: {clip_norm: 0.05, clip_parts: network}"),
    "clipped mixture": (
        ARCFACE.replace("s:", "sample_rate: 0.5, triplet: {}, s:"),
        IDENTITIES,
        "optim: {clip_norm: 0.05, clip_parts: network}",
    ),
    "ramp": (ARCFACE.replace("s:", "margin_ramp_epochs: 3, filter_above: 0.6, s:"), "optim: {ema_decay: 0.8}"),
    "triplet": ("{name: triplet}", IDENTITIES),
    "triplet batch-hard": ("{name: triplet, mining: batch-hard, distance: plain, soft: true}", IDENTITIES),
    "triplet distance-weighted": ("{name: triplet, mining: distance-weighted}", IDENTITIES),
    "triplet all": ("{name: triplet, mining: all}", IDENTITIES),
    "supcon": ("{name: supcon}", IDENTITIES),
    "multi-similarity": ("{name: multi-similarity, beta: 10}", IDENTITIES),
    "pair": ("{name: pair}", PAIRS),
    "pair contrastive": ("{name: pair, loss: contrastive, margin: 1.0}", PAIRS),
    "mixture": (ARCFACE.replace("s:", "triplet: {mining: hardest}, triplet_weight: 2, s:"), IDENTITIES),
    "fusion": ("{name: fusion, hidden: [8], embedding_size: 8, network: skip, loss: {name: supcon}}", ROWS, IDENTITIES),
    "fusion sets": (FUSED_SETS + "loss: {name: contrastive, margin: 0.9}}", ROWS, IDENTITIES),
    "fusion arcface": (FUSED_SETS + "loss: {name: arcface, s: 16}}", ROWS, IDENTITIES),
    "match": ("{name: match, hidden: [8], centre: true}", ROWS, PAIRS),
}
BY_MICRO_BATCH: dict[str, tuple[str, ...]] = {
    "statistics": (ARCFACE, "model: {dropout: 0.2}"),
    "statistics pair": ("{name: pair, keep_hardest: 0.5}", PAIRS),
    "hardest": (ARCFACE.replace("s:", "keep_hardest: 0.5, s:"), "model: {dropout: 0.2}"),
    "match all": ("{name: match, pairs: all, hidden: [8], dropout: 0.2}", ROWS, IDENTITIES),
}
"""What depends on the micro-batch, by BatchNorm, dropout or OHEM, and on nothing else."""
FROZEN = "optim: {freeze_epochs: 3.34, backbone_lr_scale: 0.1}\ntrain: {micro_batch: 4}"
LATE: dict[str, tuple[str, ...]] = {
    "late": (ARCFACE, FROZEN, "model: {weights: SOURCE}"),
    "late mixture": (ARCFACE.replace("s:", "triplet: {}, s:"), IDENTITIES, FROZEN, "model: {weights: SOURCE}"),
    "late pretrained": (ARCFACE, FROZEN, "model: {pretrained: BODY}"),
}
"""What was loaded starts to learn after 10 steps; all of the network in the first two, its body in the last."""
BASE = (
    "optim: {lr: 0.02, warmup_epochs: 0}\n"
    "model: {dropout: 0}\n"
    f"train: {{epochs: 50, max_steps: {STEPS}, micro_batch: 8, precision: fp64}}\n"
    f"checkpoint: {{every_steps: {MIDDLE}}}\n"
)
WHOLE = ["--train.micro_batch", "16"]
QUARTERS = ["--train.micro_batch", "4"]
ELASTIC = (
    ARCFACE.replace("s:", "sample_rate: 0.5, s:"),
    "train: {precision: fp32, micro_batch: 4}\ncheckpoint: {every_steps: 6}\noptim: {lr: 0.001}",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spread")


@pytest.fixture(scope="module")
def jobs(folder: Path) -> dict[str, dict[str, Any]]:
    shards = write_people(folder / "people", people=12, images=4)
    made: dict[str, dict[str, Any]] = {}
    (folder / "source").mkdir()
    source = write_task(folder / "source", shards, ARCFACE, BASE, "train: {max_steps: 2}")
    run, body = do_all({"source": {"config": str(source)}})["source"]["folder"], folder / "body.safetensors"
    save_file(timm.create_model("test_vit").state_dict(), body)
    rows = write_rows(folder / "rows", people=12, images=4)
    for name, (task, *more) in {**OBJECTIVES, **BY_MICRO_BATCH, **LATE, "elastic": ELASTIC}.items():
        (folder / name).mkdir()
        more = [
            overlay.replace("SOURCE", run).replace("BODY", str(body)).replace("ROWS", str(rows)) for overlay in more
        ]
        config = write_task(folder / name, shards, task, BASE, *more)
        made[name] = {"config": str(config), "still": name in {*OBJECTIVES, "elastic"}}
    return made


@pytest.fixture(scope="module")
def alone(jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """One process, two micro-batches a step."""
    return do_all(jobs)


@pytest.fixture(scope="module")
def both(jobs: dict[str, dict[str, Any]], folder: Path) -> list[dict[str, dict[str, Any]]]:
    """Two processes, one micro-batch each."""
    quarters = {f"{n} in quarters": {**jobs[n], "overrides": QUARTERS} for n in ("arcface", "mixture", "pair")}
    more = {name: {**jobs[name], "again": name, "from": MIDDLE} for name in ("sampled", "mixture", "late")}
    more = {f"{name} again": job for name, job in more.items()}
    poison = {f"{n} poisoned": {**jobs[n], "poison": [1, 3]} for n in ("arcface", "triplet", "pair", "statistics")}
    elastic = {"elastic": {**jobs["elastic"], "overrides": ["--train.max_steps", "6"]}}
    return launch_jobs(folder / "two.json", {**jobs, **quarters, **elastic, **more, **poison}, 2)


def assert_same_course(found: dict[str, Any], expected: dict[str, Any], relative: float, steps: int = STEPS) -> None:
    """Compare loss and length of the gradient, step by step."""
    lines, others = log_lines(Path(found["folder"])), log_lines(Path(expected["folder"]))
    assert [line["step"] for line in lines] == list(range(1, steps + 1))
    for line, other in zip(lines, others, strict=True):
        for key in ("loss", "grad_norm"):
            assert line[key] == pytest.approx(other[key], rel=relative), (line["step"], key)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_micro_batches_learn_what_the_whole_batch_does(jobs: Any, alone: Any, name: str) -> None:
    whole = do_all({name: {**jobs[name], "overrides": WHOLE}})[name]
    assert_same_course(alone[name], whole, 1e-9)
    assert alone[name]["odd_labels"] == whole["odd_labels"] == []


@pytest.mark.parametrize("name", [*OBJECTIVES, *BY_MICRO_BATCH, *LATE])
def test_two_processes_learn_what_one_does(alone: Any, both: Any, name: str) -> None:
    assert_same_course(both[0][name], alone[name], 1e-9)
    assert both[0][name]["odd_labels"] == both[1][name]["odd_labels"] == alone[name]["odd_labels"] == []
    mine, theirs = (weights(Path(found[name]["folder"]), STEPS) for found in (alone, both[0]))
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        if "running_" in key or "num_batches" in key:  # one process moves them by two micro-batches, two by a mean
            continue
        torch.testing.assert_close(theirs[key], value, rtol=1e-7, atol=1e-9, msg=key)


@pytest.mark.parametrize("name", ["arcface", "mixture", "pair"])
def test_two_processes_accumulate_as_one_does(alone: Any, both: Any, name: str) -> None:
    assert_same_course(both[0][f"{name} in quarters"], alone[name], 1e-9)


@pytest.mark.parametrize("name", ["sampled", "mixture", "late"])
def test_two_processes_go_on_to_the_bit(both: Any, name: str) -> None:
    straight, again = (Path(both[0][key]["folder"]) for key in (name, f"{name} again"))
    assert log_lines(again) == log_lines(straight)
    assert_same_bits(weights(again, STEPS), weights(straight, STEPS))


@pytest.mark.parametrize("name", ["arcface", "triplet", "pair", "statistics"])
def test_one_process_that_meets_nan_stops_all_before_a_weight_changes(both: Any, name: str) -> None:
    for found in both:
        assert "not finite in step 4" in found[f"{name} poisoned"]["error"]
        assert found[f"{name} poisoned"]["changed"] == []
    folder = Path(both[0][f"{name} poisoned"]["folder"])
    with open(folder / "nonfinite.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["step"] for row in rows] == ["4"] * 16
    assert not list((folder / "checkpoints").iterdir())
    assert "Its 16 images are listed in" in both[0][f"{name} poisoned"]["error"]


@pytest.mark.parametrize("name", LATE)
def test_two_processes_keep_what_was_loaded_until_its_time_comes(both: Any, name: str) -> None:
    folder = Path(both[0][name]["folder"])
    state = json.loads((folder / "checkpoints" / "step-00000005" / "state.json").read_text())
    at = [weights(folder, step) for step in (5, 10, 15)]
    first, second, third = ({key: tensors[key] for key in state["loaded"]} for tensors in at)
    assert_same_bits(first, second)
    moved = [key for key in first if not torch.equal(third[key], first[key])]
    assert len(moved) > 0.9 * len(first)


def test_the_number_of_processes_may_change_twice(jobs: Any, alone: Any, both: Any, folder: Path) -> None:
    run = both[0]["elastic"]["folder"]
    job = {**jobs["elastic"], "resume": run}
    do_all({"one": {**job, "overrides": ["--train.max_steps", "12"]}})
    launch_jobs(folder / "four.json", {"four": job}, 4)
    log = (Path(run) / "log.txt").read_text()
    assert [f"{count} process(es)" in log for count in (1, 2, 3, 4)] == [True, True, False, True]
    changed, constant = losses(Path(run)), losses(Path(alone["elastic"]["folder"]))
    assert changed.keys() == constant.keys() == set(range(1, STEPS + 1))
    assert changed == pytest.approx(constant, rel=1e-6)
