"""A run's first step, done once for nothing -> the micro-batch that fits into the device's memory."""

import gc
from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F

from fastface import dist
from fastface.data.batch import Batch
from fastface.heads.class_rows import ClassRows
from fastface.optim import num_moments
from fastface.run import Run
from fastface.step import backpropagate
from fastface.timing import silent

LESS_MEMORY = (
    "train.precision bf16, a smaller data.size or network, a smaller train.batch_size (where the loss compares whole "
    "batches), task.head_memory_mb or task.sample_rate (where there are many identities) need less"
)


def can_run_out(device: torch.device) -> bool:
    """Say whether torch tells of the end of this device's memory; on a CPU the kernel ends the process instead."""
    return device.type != "cpu"


def fit_micro_batch(run: Run, say: Callable[[str], None]) -> None:
    """Halve the micro-batch of a run that begins, and double its accumulation, until its first step fits everywhere.

    The step is rehearsed: all its micro-batches go forward and back, through network and loss, with the loader
    running, at the largest of data.scales, with what optim.freeze_epochs keeps at first learning too, and beside
    memory for the moments that the optimizer will hold from its first step on. Then all that it touched is put back:
    gradients, buffers (BatchNorm's and the margin's), what the margin has seen, torch's random state; the loader
    begins again. So the run that follows is, to the bit, the one that train.micro_batch would have given.

    Guaranteed on several processes: wherever one of them runs out of memory (loader, forward, loss, backward), all go
    on with the same micro-batch, or end with the same error, and none waits for one that gave up. For this no process
    hears of the others while it rehearses: its own rows stand in for theirs, in the same shapes (dist.alone), and
    gradients are not averaged. Only then are all asked. Not covered is what comes later and is larger than this step:
    the buffers of NCCL and DALI, fragmentation, other programs, evaluation (eval.batch_size). Running out of memory
    then ends the run, with a sentence that says what to do.

    A train.micro_batch that was set is halved as well, and that is said: BatchNorm depends on it.

    Raises:
        ValueError: where no micro-batch fits, with what was tried.
    """
    tried: list[int] = []
    while where := _without_room(run):
        micro = run.state["micro_batch"]
        tried.append(micro)
        who = f" on process {', '.join(map(str, where))}" if dist.world() > 1 else ""
        half = _half(micro, run.plan.unit, tried, who)
        run.use_micro_batch(half)
        if run.config.train.compile:
            torch.compiler.reset()  # else what is compiled next allows for several sizes, with other bits
        say(
            f"out of memory{who} with {micro} images a forward pass: the micro-batch halves to {half}, accumulation "
            f"doubles to {run.accumulation}. A step has the same images; BatchNorm sees {half} of them at a time"
        )
    if tried and run.config.train.micro_batch:
        say(
            f"! train.micro_batch was set to {tried[0]}: where BatchNorm matters, this run is not the one of its "
            "configuration. A device with more memory gives that one"
        )


def _half(micro: int, unit: int, tried: list[int], who: str) -> int:
    """Return the next smaller micro-batch; it divides a process's share of the batch, since twice of it does."""
    half, odd = divmod(micro, 2)
    if not odd and half % unit == 0:
        return half
    why = f"{micro} has no half" if odd else f"{half} would part {unit} rows that belong together (data.plan)"
    raise ValueError(
        f"out of memory{who} before the first step with {_listed(tried)} images a forward pass, and {why}. "
        f"Take a device with more memory, or less of it: {LESS_MEMORY}"
    )


def _listed(tried: list[int]) -> str:
    return ", ".join(map(str, tried))


def _without_room(run: Run) -> list[int]:
    """Rehearse the first step; return the processes that ran out of memory, the same list on all of them."""
    cuda = run.accelerator.device.type == "cuda"
    before = [(buffer, buffer.clone()) for buffer in run.task.buffers()]
    watch, run.task.watch = run.task.watch, silent  # type: ignore[method-assign]
    run.late.at(run.late.steps)
    batches = run.loader.batches(0, 1)
    ran_out = False
    with torch.random.fork_rng([torch.cuda.current_device()] if cuda else []), dist.alone():
        try:
            moments = _moments(run)
            backpropagate(run, _as_large_as_any(batches, run.config.data.scales), 0, silent)
            del moments
        except torch.OutOfMemoryError:
            ran_out = True
    batches.close()  # type: ignore[attr-defined]
    run.task.zero_grad(set_to_none=True)
    run.task.forget_step()
    run.late.at(0)
    run.task.watch = watch  # type: ignore[method-assign]
    with torch.no_grad():
        for buffer, value in before:
            buffer.copy_(value)
    if ran_out:
        gc.collect()  # what the error's frames held
        if cuda:
            torch.cuda.empty_cache()
    every = np.concatenate(dist.gather_rows(np.array([ran_out])))
    return np.flatnonzero(every).tolist()


def _moments(run: Run) -> list[torch.Tensor]:
    """Hold the memory that the optimizer takes at its first step."""
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    sampled = [m.weight for m in run.task.modules() if isinstance(m, ClassRows) and m.sampled]  # theirs are kept whole
    count = num_moments(getattr(run.optimizer, "optimizer", run.optimizer))
    return [torch.empty_like(p) for p in [*parameters, *sampled] for _ in range(count)]


def _as_large_as_any(batches: Iterator[Batch], scales: tuple[tuple[int, int], ...]) -> Iterator[Batch]:
    """Resize images to the largest size (width, height) that a step may draw."""
    width, height = max(scales, key=lambda size: size[0] * size[1], default=(0, 0))
    for batch in batches:
        same = not scales or batch.images.shape[2:] == (height, width)
        yield batch if same else batch._replace(images=F.interpolate(batch.images, (height, width)))
