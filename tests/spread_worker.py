"""Jobs -> runs, one after the other in the same processes: starting processes costs more than these runs take."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fastface import dist, trainer
from fastface.command import Command, load_config
from fastface.run import Run, build_run
from fastface.tasks.base import Output, Targets
from tests.training import cut_back, limit_memory


def hold_statistics(network: nn.Module) -> None:
    """Let BatchNorm be a fixed line for good: then no image changes the embedding of another."""
    for layer in network.modules():
        if isinstance(layer, _BatchNorm):
            layer.eval()
            layer.train = lambda mode=True, layer=layer: layer  # type: ignore[method-assign,misc]


def do(job: dict[str, Any], before: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Train one run and return what it did.

    job: config; overrides; still (see hold_statistics); again, from: go on with a copy of an earlier job's run from
    this step; resume: go on with this run; poison: [process, step] whose loss is made NaN; room: [process, images,
    where], see limit_memory.
    """
    resume = job.get("resume")
    if "again" in job:
        folder = Path(before[job["again"]]["folder"])
        resume = str(folder.with_name(f"{folder.name}-again"))
        if dist.is_main():
            shutil.copytree(folder, resume)
            cut_back(Path(resume), job["from"])
        dist.barrier()
    path = Path(job["config"])
    run = build_run(Command(load_config(path, overrides=job.get("overrides", [])), path.stem, resume))
    if job.get("still"):
        hold_statistics(run.task.backbone)
    watched = Watched(run, job.get("poison"))
    if "room" in job and job["room"][0] == dist.rank():
        limit_memory(run, *job["room"][1:])
    trainer.can_run_out = lambda device: "room" in job
    error = None
    try:
        assert trainer.train(run) == 0
    except (FloatingPointError, ValueError) as caught:
        error = str(caught)
    run.lock = run.lock and run.lock.close()
    return {"folder": str(run.folder), "error": error, "changed": watched.changed(), "odd_labels": watched.odd}


class Watched:
    """Looks over a run's shoulder: which labels come, and whether the last step changed a weight."""

    def __init__(self, run: Run, poison: list[int] | None) -> None:
        self.run, self.poison = run, poison
        self.odd: list[int] = []  # steps whose labels are not those that the step had announced
        self.announced: Any = None
        self.step, self.micro = -1, 0
        self.start: dict[str, Tensor] = {}
        self.before_step, self.targets, self.loss = run.task.before_step, run.task.targets, run.task.loss
        run.task.before_step = self._before_step  # type: ignore[method-assign]
        run.task.targets = self._targets  # type: ignore[method-assign]
        run.task.loss = self._loss  # type: ignore[method-assign]

    def _before_step(self, info: Any, optimizer: Any) -> None:
        assert info.epoch == info.step / self.run.steps_per_epoch
        self.step, self.announced, self.micro = info.step, info.labels(), 0
        self.start = {name: tensor.clone() for name, tensor in self.run.task.state_dict().items()}
        self.before_step(info, optimizer)

    def _targets(self, batch: Any) -> Targets:
        targets = self.targets(batch)
        first = (dist.rank() * self.run.accumulation + self.micro) * self.run.state["micro_batch"]
        rows = len(batch.labels) // len(targets["labels"])  # of a clip, which has one label
        expected = self.announced[first : first + len(batch.labels) : rows]
        if targets["labels"].tolist() != expected.tolist():
            self.odd.append(self.step)
        self.micro += 1
        return targets

    def _loss(self, embedding: Tensor, targets: Targets) -> Output:
        out = self.loss(embedding, targets)
        if self.poison == [dist.rank(), self.step]:
            out = out._replace(loss=out.loss * torch.nan)
        return out

    def changed(self) -> list[str]:
        """Name the trained tensors that are no longer what they were when the last step began."""
        names = {name for name, _ in self.run.task.named_parameters()}
        state = self.run.task.state_dict()
        return [name for name, was in self.start.items() if name in names and not torch.equal(was, state[name])]


def do_all(jobs: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    trainer.try_draw = lambda folder, say: None  # takes longer than such a run
    done: dict[str, dict[str, Any]] = {}
    for name, job in jobs.items():
        if dist.world() == 1:
            AcceleratorState._reset_state()
        done[name] = do(job, done)
    return done


if __name__ == "__main__":
    file = Path(sys.argv[1])
    found = do_all(json.loads(file.read_text()))
    file.with_suffix(f".{dist.rank()}.json").write_text(json.dumps(found))
