"""Micro-batches -> one optimizer step: gradients computed, averaged over processes, clipped, refused, applied."""

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, _foreach_mul_, _foreach_norm, _foreach_zero_, nn  # type: ignore[attr-defined]

from fastface import dist
from fastface.data.batch import Batch
from fastface.data.normalisation import normalised
from fastface.heads.class_rows import ClassRows
from fastface.optim import set_learning_rate
from fastface.run import Run
from fastface.tasks.base import Output, StepInfo, Targets
from fastface.timing import Watch


class StepResult(NamedTuple):
    terms: dict[str, Tensor]
    """Scalars to log, still on the device; the loss is among them."""
    norm: Tensor
    """Length of the whole gradient before clipping, over all processes' rows."""


def train_step(run: Run, batches: Iterator[Batch], step: int, guard: "FiniteGuard", watch: Watch) -> StepResult:
    """Take one optimizer step over this process's micro-batches of the step."""
    run.start_part(step)
    set_learning_rate(run.optimizer.param_groups, run.schedule(step))
    sums = backpropagate(run, batches, step, watch)
    with watch("optimizer"):
        norm = finish_gradients(run)
        guard.add(step, sums["loss"], norm, scaled=run.accelerator.scaler is not None)
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        run.task.after_step(run.optimizer)
        dist.average_buffers(run.task.backbone)
        if run.average is not None:
            run.average.update(step)
    return StepResult(sums, norm)


def backpropagate(run: Run, batches: Iterator[Batch], step: int, watch: Watch) -> dict[str, Tensor]:
    """Leave the step's gradient in the parameters, the network's averaged over processes; return loss and terms."""
    info = StepInfo(step, step / run.steps_per_epoch, run.state["micro_batch"], lambda: run.labels_of(step))
    run.task.before_step(info, run.optimizer)
    whole = run.task.across_batch and run.accumulation > 1
    return _compare_all(run, batches, step, watch) if whole else _learn_each(run, batches, step, watch)


def _learn_each(run: Run, batches: Iterator[Batch], step: int, watch: Watch) -> dict[str, Tensor]:
    """Backpropagate micro-batch by micro-batch; the loss is the mean of theirs."""
    sums: dict[str, Tensor] = {}
    for micro in range(run.accumulation):
        with watch("data"):
            batch = _next(run, batches, step, micro)
        with _synchronised(run, micro == run.accumulation - 1):
            with watch("forward"):
                embedding, targets = _embed(run, batch), _targets(run, batch)
            with watch("loss"), run.accelerator.autocast():
                out: Output = run.task.objective(embedding, targets)
            with watch("backward"):
                run.accelerator.backward(out.loss / run.accumulation)
        for key, value in {"loss": out.loss, **out.terms}.items():
            value = value.detach() / run.accumulation
            sums[key] = sums[key] + value if key in sums else value
    return sums


def _compare_all(run: Run, batches: Iterator[Batch], step: int, watch: Watch) -> dict[str, Tensor]:
    """Backpropagate a loss that compares all images of the step, micro-batch by micro-batch.

    Embeddings are first computed without a graph, the loss and its gradient by all of them follow, and every
    micro-batch is then passed forward again, this time with a graph, and that gradient back (gradient caching, Gao et
    al., arXiv 2101.06983): the memory of one micro-batch, the gradient of the whole batch, a third more arithmetic.
    """
    kept: list[Batch] = []
    embeddings: list[Tensor] = []
    targets: list[Targets] = []
    for micro in range(run.accumulation):
        with watch("data"):
            batch = _next(run, batches, step, micro)
            kept.append(batch._replace(images=batch.images.clone()))  # the loader uses its memory again
        with watch("forward"), torch.no_grad(), statistics_kept(run.task.backbone):
            embeddings.append(_embed(run, kept[-1]))
            targets.append(_targets(run, kept[-1]))
    leaf = torch.cat(embeddings).requires_grad_()
    with watch("loss"), run.accelerator.autocast():
        out = run.task.objective(leaf, {key: torch.cat([t[key] for t in targets]) for key in targets[0]})
    with watch("backward"):
        run.accelerator.backward(out.loss)
    assert leaf.grad is not None
    if any(p.requires_grad for p in run.task.backbone.parameters()):  # else all of it was loaded and is kept as it is
        for batch, gradient in zip(kept, leaf.grad.split([len(rows) for rows in embeddings]), strict=True):
            with _synchronised(run, batch.micro == run.accumulation - 1):
                with watch("forward"):
                    embedding = _embed(run, batch)
                with watch("backward"):
                    torch.autograd.backward(embedding, gradient)
    return {"loss": out.loss.detach(), **{key: value.detach() for key, value in out.terms.items()}}


def _next(run: Run, batches: Iterator[Batch], step: int, micro: int) -> Batch:
    batch = next(batches)
    assert (batch.step, batch.micro) == (step, micro), "the loader and the loop disagree about the step"
    images = normalised(batch.images, run.config.data.mean, run.config.data.std)
    return batch._replace(images=images.double() if run.config.train.precision == "fp64" else images)


def _embed(run: Run, batch: Batch) -> Tensor:
    # Dropout depends on (seed, step, micro-batch) alone: nothing to save, and the same on any number of processes.
    torch.manual_seed(seed_of(run.config.seed, batch.step, dist.rank() * run.accumulation + batch.micro))
    return run.network(run.task.inputs(batch))


def _targets(run: Run, batch: Batch) -> Targets:
    with run.accelerator.autocast():  # a teacher embeds in the student's precision
        return run.task.targets(batch)


def _synchronised(run: Run, last: bool) -> contextlib.AbstractContextManager[Any]:
    """Average gradients over the processes with the last micro-batch only."""
    return contextlib.nullcontext() if last and not dist.is_alone() else run.accelerator.no_sync(run.network)


@contextlib.contextmanager
def statistics_kept(module: nn.Module) -> Iterator[None]:
    """Let BatchNorm use a batch's statistics, as in training, and leave its running ones as they are."""
    layers = [m for m in module.modules() if getattr(m, "track_running_stats", False)]
    for layer in layers:
        layer.track_running_stats = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.track_running_stats = True  # type: ignore[assignment]


def finish_gradients(run: Run) -> Tensor:
    """Average, unscale and clip the step's gradients in place; return the length of the whole before clipping.

    Clipped is the whole by its length or, with optim.clip_parts network, the network's part by that part's.

    The length is over the network, what else is the same on all processes, and all processes' rows of the head, so it
    is the same number everywhere, and so is whether it is finite. Where it is not, gradients become zero: nothing that
    is not finite reaches a weight, without waiting for the device. With loss scaling (fp16) the step is skipped.
    """
    parameters = [p for group in run.optimizer.param_groups for p in group["params"] if p.grad is not None]
    rows = {id(m.learning) for m in run.task.modules() if isinstance(m, ClassRows)}
    backbone = {id(p) for p in run.task.backbone.parameters()}
    dist.average([p.grad for p in parameters if id(p) not in rows | backbone and p.grad is not None])
    shared = [p.grad for p in parameters if id(p) not in rows and p.grad is not None]
    own = [p.grad for p in parameters if id(p) in rows and p.grad is not None]
    if run.accelerator.scaler is not None:
        _tell_all_of_infinity(shared, own)
        run.accelerator.unscale_gradients(run.optimizer)
    device = run.accelerator.device
    if run.config.optim.clip_parts == "all":
        norm = (_squares(shared, device) + dist.total(_squares(own, device))).sqrt()
        _scale([*shared, *own], norm, run.config.optim.clip_norm)
        return norm.detach()
    network = [p.grad for p in parameters if id(p) in backbone and p.grad is not None]
    rest = [p.grad for p in parameters if id(p) not in rows | backbone and p.grad is not None]
    squares = _squares(network, device)
    norm = (squares + _squares(rest, device) + dist.total(_squares(own, device))).sqrt()
    _scale(network, torch.where(norm.isfinite(), squares.sqrt(), norm), run.config.optim.clip_norm)
    _scale([*rest, *own], norm, None)
    return norm.detach()


def _squares(gradients: list[Tensor], device: torch.device) -> Tensor:
    if not gradients:
        return torch.zeros((), device=device)
    return torch.stack([length.to(device) for length in _foreach_norm(gradients)]).square().sum()


def _scale(gradients: list[Tensor], norm: Tensor, clip: float | None) -> None:
    """Shorten gradients whose length together is `norm` to `clip`; make them zero where it is not finite; in place."""
    if not gradients:
        return
    finite = norm.isfinite()
    if norm.device.type == "cpu":  # looking is free, and most steps need no pass over the memory of all gradients
        if not finite:
            _foreach_zero_(gradients)
        elif clip and norm + 1e-6 > clip:
            _foreach_mul_(gradients, float(clip / (norm + 1e-6)))
        return
    if clip:
        _foreach_mul_(gradients, (clip / (norm + 1e-6)).clamp(max=1.0))
    spoilt = ~finite  # NaN times anything is NaN, so it is overwritten
    for gradient in gradients:
        gradient.masked_fill_(spoilt, 0.0)


def _tell_all_of_infinity(shared: list[Tensor], own: list[Tensor]) -> None:
    """Let an infinite gradient of one process's rows be seen by all, so that all skip the same step."""
    if own and shared:
        bad = dist.total(torch.stack([(~g.isfinite()).any() for g in own]).any().float())
        first = shared[0][(0,) * shared[0].ndim]  # a view whatever the memory format
        first += torch.where(bad > 0, torch.inf, 0.0).to(first.dtype)


class FiniteGuard:
    """Notices a loss or gradient that is not finite: at once on a CPU, without waiting for the device on a GPU
    (there at the next log step, and always before a checkpoint is written)."""

    NEVER = 1 << 62

    def __init__(self, device: torch.device) -> None:
        self.host = device.type == "cpu"
        self._first = torch.full((), self.NEVER, dtype=torch.int64, device=device)

    def add(self, step: int, loss: Tensor, norm: Tensor, *, scaled: bool) -> None:
        bad = ~torch.isfinite(loss)
        if not scaled:  # fp16's loss scaling meets infinite gradients on purpose and skips those steps
            bad = bad | ~torch.isfinite(norm)
        self._first = torch.where(bad & (self._first == self.NEVER), step, self._first)
        if self.host and not bool(norm.isfinite()):  # the norm is the same on all processes, so all of them enter
            self.check()  # on a CPU looking is free: stop before the weights are touched

    def check(self) -> None:
        """Raise NotFiniteError where a step since the last check was not finite, on all processes alike."""
        first = int(dist.smallest(self._first))
        if first != self.NEVER:
            raise NotFiniteError(first)


class NotFiniteError(FloatingPointError):
    """A loss or gradient that is not finite; `step` counts from 0."""

    def __init__(self, step: int) -> None:
        self.step = step
        super().__init__(
            f"loss or gradient is not finite in step {step + 1}: nothing was saved after it. "
            "Lower optim.lr, lengthen optim.warmup_epochs, or set train.precision to fp32; then --resume"
        )


def seed_of(seed: int, step: int, micro: int) -> int:
    """A 63-bit number for torch's generator (splitmix64's finaliser, so that neighbours share nothing)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + micro * 0x94D049BB133111EB + 1) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1
