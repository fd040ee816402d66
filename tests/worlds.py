"""The same small training on 1, 2 and 4 gloo processes, changed over from one number to another: started once for all.

python -m tests.worlds RANK WORLD FOLDER      is what a process of it runs
"""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.distributed as td
from torch import Tensor, nn

from fastface import dist
from fastface.collect import gather, gather_parts, largest, log_sum_exp_parts, sum_parts
from fastface.heads.margin_head import MarginHead
from fastface.losses.margins import build_margin
from fastface.optim import build_optimizer
from fastface.resharding import restore_model, restore_optimizer, whole_model, whole_optimizer

BATCH, CLASSES, STEPS = 8, 7, 20  # 7 classes are 1 or 2 to a process of 4


class Case(NamedTuple):
    margin: str
    optimizer: str
    options: dict[str, Any]
    kind: torch.dtype = torch.float64


CASES = {
    "sgd": Case("curricularface", "sgd", {}),
    "sgd, sampled": Case("arcface", "sgd", {"sample_rate": 0.3}),
    "adamw, sampled, sub-centres": Case(
        "adaface", "adamw", {"sample_rate": 0.3, "sub_centres": 3, "filter_above": 0.3}
    ),
    "adamw, none but the present": Case("curricularface", "adamw", {"sample_rate": 1e-9}),
    "adagrad, sub-centres, hardest": Case("cosface", "adagrad", {"sub_centres": 3, "keep_hardest": 0.5}),
    "adagrad, sampled": Case("magface", "adagrad", {"sample_rate": 0.3}),
    "adamw, sampled, float32": Case("arcface", "adamw", {"sample_rate": 0.3}, torch.float32),
}


class Run(NamedTuple):
    losses: np.ndarray
    """[processes, steps]."""
    chosen: np.ndarray
    """bool [CLASSES, steps]: whether a step had the class among its rows."""
    gradients: dict[str, Tensor]
    """Of the first step: by the backbone's weights, by the embeddings [BATCH, D], by the step's rows."""
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]


class Small(nn.Module):
    def __init__(self, case: Case) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 4))
        self.head = MarginHead(CLASSES, 4, margin=build_margin(case.margin), s=16.0, seed=3, **case.options)
        self.head.micro_batch = 2
        self.to(case.kind)


def batch(step: int, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(BATCH, 5, generator=generator, dtype=torch.float64)
    return images.to(kind), torch.randint(0, CLASSES, (BATCH,), generator=generator)


def train(case: Case, first: int, last: int, start: Path | None = None, saved: dict[int, Path] | None = None) -> Run:
    """Train the steps [first, last); `start`: what to go on with; `saved`: step -> file for what it starts from."""
    task = Small(case)
    parameters = [{"params": [p for p in task.parameters() if p.requires_grad], "weight_decay": 0.05}]
    optimizer = build_optimizer(case.optimizer, parameters, lr=0.01, momentum=0.9, betas=(0.9, 0.99), fused=False)
    if start is not None:
        model, state = torch.load(start)
        restore_model(task, model)
        restore_optimizer(optimizer, task, state)
        again = whole_optimizer(optimizer, task)  # before any step: nothing may get lost
        assert again.keys() == state.keys()
        assert not dist.is_main() or all(torch.equal(again[key], value) for key, value in state.items())
    losses, gradients = [], {}
    chosen = np.ones((task.head.last - task.head.first, last - first), bool)
    share = BATCH // dist.world()
    own = slice(dist.rank() * share, (dist.rank() + 1) * share)
    for step in range(first, last):
        if saved and step in saved:
            whole = whole_model(task), whole_optimizer(optimizer, task)
            if dist.is_main():
                torch.save(whole, saved[step])
        images, labels = batch(step, case.kind)
        task.head.choose(step, labels.numpy, optimizer)
        optimizer.zero_grad()
        embedding = task.backbone(images[own])
        embedding.retain_grad()
        loss = task.head(embedding, labels[own]).loss
        loss.backward()
        dist.average([p.grad for p in task.backbone.parameters() if p.grad is not None])
        if step == first:
            rows = task.head.learning.grad
            assert embedding.grad is not None
            assert rows is not None
            gradients = {name: p.grad.clone() for name, p in task.backbone.named_parameters() if p.grad is not None}
            gradients["embedding"] = torch.from_numpy(np.concatenate(dist.gather_rows(embedding.grad.numpy())))
            gradients["embedding"] /= dist.world()
            gradients["rows"] = dist.whole_rows(rows).clone()
        optimizer.step()
        task.head.put_back(optimizer)
        task.head.settle()
        losses.append(loss.item())
        if task.head._chosen is not None:
            chosen[:, step - first] = np.isin(np.arange(len(chosen)), task.head._chosen.numpy())
    each = np.stack(dist.gather_rows(np.array(losses)))
    whole = whole_model(task), whole_optimizer(optimizer, task)
    every = np.concatenate(dist.gather_rows(chosen))
    return Run(each, every, gradients, *({name: value.clone() for name, value in part.items()} for part in whole))


def collected() -> dict[str, Tensor]:
    """What each function of fastface.collect gives this process: rows 2 to a process, and gradients by them."""
    rank, world = dist.rank(), dist.world()
    found: dict[str, Tensor] = {}
    whole = torch.arange(2.0 * world * 3, dtype=torch.float64).view(2 * world, 3).sin()
    for name, function in {"gather": gather, "gather_parts": gather_parts}.items():
        rows = whole[2 * rank : 2 * rank + 2].clone().requires_grad_()
        every = function(rows)
        # The same on every process, or its own; as a sum over transposed rows the gradient comes transposed.
        weight = 1.0 if name == "gather" else rank + 1.0
        (every.T.cos() * weight).sum().backward()
        assert rows.grad is not None
        found |= {name: every.detach(), f"{name}, gradient": rows.grad}
    found["labels"] = gather(torch.tensor([rank, 10 * rank]))
    inf = torch.inf
    part = torch.tensor([0.5 * rank, -inf, 800.0 - rank, -inf if rank else 2.0, -1000.0 * (rank + 1)])
    for name, function in {"sum": sum_parts, "log_sum_exp": log_sum_exp_parts}.items():
        value = part.double()
        if name == "sum":
            value = value.clamp(-10.0, 10.0)
        value.requires_grad_()
        total = function(value)
        (total.clamp(-1e6, 1e6) * torch.arange(1.0, 6.0)).sum().backward()
        assert value.grad is not None
        found |= {name: total.detach(), f"{name}, gradient": value.grad, f"{name}, of": value.detach()}
    found["largest"] = largest(part)
    return found


def runs(folder: Path) -> dict[str, Run]:
    """Run all cases on this many processes; after 2 processes 1 goes on, and 4 after it, and back."""
    torch.set_num_threads(1)
    world = dist.world()
    found = {}
    for name, case in CASES.items():
        files = folder / name
        files.mkdir(exist_ok=True)
        found[f"{name}/{world}"] = train(case, 0, STEPS, None, {10: files / f"{world}"})
        if world == 2:
            found[f"{name}/1-2"] = train(case, 10, STEPS, files / "1")
        if world == 4:
            found[f"{name}/2-4"] = train(case, 10, STEPS, files / "2")
            found[f"{name}/2-1-4"] = train(case, 15, STEPS, files / "2-1")
    return found


@cache
def everything() -> tuple[dict[str, Run], dict[int, list[dict[str, Tensor]]]]:
    """Return the runs by "CASE/WHO AFTER WHOM" and, by the number of processes, what each process collected."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = runs(folder)
        found |= start(folder, 2)
        for key, case in CASES.items():
            files = folder / key
            found[f"{key}/2-1"] = train(case, 10, STEPS, files / "2", {15: files / "2-1"})
        found |= start(folder, 4)
        for key, case in CASES.items():
            found[f"{key}/4-1"] = train(case, 10, STEPS, folder / key / "4")
        gathered = {
            world: [torch.load(folder / f"collected-{world}-{rank}") for rank in range(world)] for world in (2, 4)
        }
        return found, gathered | {1: [collected()]}


def start(folder: Path, world: int) -> dict[str, Run]:
    """Run `member` in so many processes, forked from one that has done the imports: they take longer than the work."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.worlds", "torch._dynamo"])  # the latter is what an optimizer imports
    processes = [context.Process(target=member, args=(rank, world, folder), daemon=True) for rank in range(world)]
    for process in processes:
        process.start()
    try:
        for process in processes:
            process.join(180)
    finally:
        for process in processes:
            process.kill()
    said = [path.read_text() for path in folder.glob("failed-*")]
    assert [process.exitcode for process in processes] == [0] * world, "\n".join(said)
    return torch.load(folder / f"runs-{world}", weights_only=False)


def member(rank: int, world: int, folder: Path) -> None:
    try:
        td.init_process_group("gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world)
        found = runs(folder)
        if rank == 0:
            torch.save(found, folder / f"runs-{world}")
        torch.save(collected(), folder / f"collected-{world}-{rank}")
        td.barrier()
        td.destroy_process_group()
    except BaseException:
        (folder / f"failed-{rank}").write_text(traceback.format_exc())
        raise
