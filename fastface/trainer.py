"""The one loop: Run -> trained weights, with saves, evaluations and an orderly end."""

import math
from typing import Any

import torch
from torch import Tensor

from fastface import checkpoint, dist
from fastface.card import Card
from fastface.data.batch import Batch, normalised
from fastface.data.damage import Bad
from fastface.durable import append_csv
from fastface.evaluators import Evaluators
from fastface.log import Log
from fastface.metrics.verification import metric_direction
from fastface.run import Run

PREEMPTED = 75
"""Exit code of a run that was asked to stop, saved and ended (EX_TEMPFAIL: try again, with --resume)."""


def train(run: Run) -> int:
    """Train to the end, or until asked to stop; return the exit code.

    Raises:
        FloatingPointError: when a loss or gradient is not finite; no checkpoint is written after that.
    """
    config = run.config
    stop = dist.StopRequest()
    log = Log(
        run.folder,
        start_step=run.start_step,
        total_steps=run.total_steps,
        every_steps=config.log.every_steps,
        images_per_step=config.train.batch_size,
        board=config.log.tensorboard,
    )
    try:
        introduce(run, log)
        evaluators = Evaluators(config.eval, Card.model_validate(run.state["card"]), run.accelerator.device)
        return loop(run, stop, log, evaluators)
    finally:
        report_damage(run, log)
        run.loader.close()
        log.close()
        stop.close()


def loop(run: Run, stop: dist.StopRequest, log: Log, evaluators: Evaluators) -> int:
    config, done = run.config, run.start_step
    every = config.eval.every_epochs
    eval_steps = max(round(every * run.steps_per_epoch), 1) if evaluators and every else None
    guard = FiniteGuard(run.accelerator.device)
    saved_at = done if done else None
    patience = config.eval.patience
    if done >= run.total_steps or (patience and run.best.get("waited", 0) >= patience):
        log.say("nothing left to train: the run was complete")
        return 0
    log.resume_clock()
    batches = run.loader.batches(start=done, stop=run.total_steps)
    run.task.train()
    while done < run.total_steps:
        waited = run.loader.timings.wait_s
        terms = train_step(run, batches, done, guard)
        done += 1
        log.step(done, terms, run.schedule(done - 1), run.loader.timings.wait_s - waited)
        last = done == run.total_steps
        if done % config.log.every_steps == 0 or last:
            guard.check(done)
            report_damage(run, log)
        if evaluators and (last or (eval_steps and done % eval_steps == 0)):
            guard.check(done)
            improved = evaluate(run, evaluators, log, done)
            if improved:  # the best checkpoint is the one that was measured
                save(run, done, log)
                saved_at = done
            if patience and run.best.get("waited", 0) >= patience:
                log.say(f"no better {config.eval.best_metric} for {patience} evaluations: stopping early")
                last = True
        asked = stop.agreed()
        if saved_at != done and (asked or last or done % config.checkpoint.every_steps == 0):
            guard.check(done)
            save(run, done, log)
            saved_at = done
        if asked and not last:
            log.say(
                f"asked to stop (signal {stop.signal or 'on another process'}): saved step {done}; --resume goes on"
            )
            return PREEMPTED
        if last:
            break
    summary = log.summary()
    log.say(f"done: {done} steps, {summary['images_per_s']:,.0f} images/s, data wait {summary['data_wait']:.1%}")
    if dist.is_main():
        checkpoint.write_json(run.folder / "summary.json", {"steps": done, **summary, "best": run.best})
    return 0


def train_step(run: Run, batches: Any, step: int, guard: "FiniteGuard") -> dict[str, Tensor]:
    """One optimizer step over this rank's micro-batches; returns the scalars to log, still on the device."""
    accelerator, config = run.accelerator, run.config
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule(step)
    sums: dict[str, Tensor] = {}
    for micro in range(run.accumulation):
        batch: Batch = next(batches)
        assert (batch.step, batch.micro) == (step, micro), "the loader and the loop disagree about the step"
        images = normalised(batch.images, config.data.mean, config.data.std)
        batch = batch._replace(images=images.double() if config.train.precision == "fp64" else images)
        # Dropout depends on (seed, step, micro-batch) alone: nothing to save, and the same on any number of ranks.
        torch.manual_seed(seed_of(config.seed, step, dist.rank() * run.accumulation + micro))
        if micro < run.accumulation - 1:
            with accelerator.no_sync(run.module):
                out = run.module(batch)
                accelerator.backward(out.loss / run.accumulation)
        else:
            out = run.module(batch)
            accelerator.backward(out.loss / run.accumulation)
        for key, value in {"loss": out.loss, **out.terms}.items():
            value = value.detach() / run.accumulation
            sums[key] = sums[key] + value if key in sums else value
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    norm = accelerator.clip_grad_norm_(parameters, config.optim.clip_norm or math.inf)
    assert norm is not None
    guard.add(sums["loss"], norm, scaled=accelerator.scaler is not None)
    if guard.host and not bool(norm.isfinite()):  # the norm is the same on all ranks, so all of them enter
        guard.check(step + 1)  # on a CPU reading it is free: stop before the weights are touched
    run.optimizer.step()
    run.optimizer.zero_grad(set_to_none=True)
    dist.average_buffers(run.task)
    return {**sums, "grad_norm": norm.detach()}


class FiniteGuard:
    """Notices a loss or gradient that is not finite: at once on a CPU, without waiting for the device on a GPU
    (there at the next log step, and always before a checkpoint is written)."""

    def __init__(self, device: torch.device) -> None:
        self.host = device.type == "cpu"
        self._bad = torch.zeros((), dtype=torch.bool, device=device)

    def add(self, loss: Tensor, norm: Tensor, *, scaled: bool) -> None:
        self._bad |= ~torch.isfinite(loss)
        if not scaled:  # fp16's loss scaling meets infinite gradients on purpose and skips those steps
            self._bad |= ~torch.isfinite(norm)

    def check(self, done: int) -> None:
        bad = dist.mean(self._bad.float())
        if float(bad) > 0:
            raise FloatingPointError(
                f"loss or gradient is not finite at or before step {done}: nothing was saved after it. "
                "Lower optim.lr, lengthen optim.warmup_epochs, or set train.precision to fp32; then --resume"
            )


def evaluate(run: Run, evaluators: Evaluators, log: Log, done: int) -> bool:
    """Evaluate on all processes, log, and say whether this is the best so far."""
    log.flush()
    values = evaluators.run(run.task.deploy())  # type: ignore[operator]
    log.metrics(done, values)
    log.say(f"step {done}: " + "  ".join(f"{k} {v:.4f}" for k, v in values.items() if k in evaluators.headline))
    metric = run.config.eval.best_metric
    if metric is None:
        return False
    value = values[metric]
    better = not run.best or metric_direction(metric) * (value - run.best["value"]) > 0
    if better:
        run.best.update(metric=metric, step=done, value=value, waited=0)
    else:
        run.best["waited"] += 1
    return better


def save(run: Run, done: int, log: Log) -> None:
    """Write the checkpoint of `done` completed steps; rank 0 writes, all wait."""
    log.flush()
    if dist.is_main():
        scaler = run.accelerator.scaler
        state = {**run.state, "best": run.best, "scaler": scaler.state_dict() if scaler is not None else None}
        folder = run.folder / "checkpoints"
        best = run.best.get("step")
        optimizer = checkpoint.flatten_optimizer(getattr(run.optimizer, "optimizer", run.optimizer), run.task)
        keep = run.config.checkpoint.keep
        path = checkpoint.save(folder, done, run.task.state_dict(), optimizer, state, keep=keep, protect=best)
        if run.best:
            checkpoint.write_json(run.folder / "best.json", run.best)
        log.say(f"saved {path}")
    dist.barrier()
    log.resume_clock()


SAID = 5
"""Damaged images named in the log at once; all are in damaged.csv."""


def report_damage(run: Run, log: Log) -> None:
    """Name what the loader found bad since the last call; every process keeps its finds in the run's damaged.csv."""
    found = run.loader.damage.news()
    if not found:
        return
    path = run.folder / "damaged.csv"
    append_csv(path, [*Bad._fields, "process"], [[*map(str, bad), str(dist.rank())] for bad in found])
    for bad in found[:SAID]:
        log.say(f"damaged, replaced by another image of its identity: {bad}")
    count, total = len(run.loader.damage), run.loader.index.num_samples
    more = f"{len(found) - SAID:,} more damaged images; " if len(found) > SAID else ""
    log.say(f"{more}{count:,} of {total:,} images found damaged by this process so far, all listed in {path}")


def seed_of(seed: int, step: int, micro: int) -> int:
    """A 63-bit number for torch's generator (splitmix64's finaliser, so that neighbours share nothing)."""
    mask = (1 << 64) - 1
    z = (seed * 0x9E3779B97F4A7C15 + step * 0xBF58476D1CE4E5B9 + micro * 0x94D049BB133111EB + 1) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return (z ^ (z >> 31)) >> 1


def introduce(run: Run, log: Log) -> None:
    """Say what is about to happen."""
    config = run.config
    for note in run.notes:
        log.say(note)
    parameters = sum(p.numel() for p in run.task.parameters())
    log.say(
        f"{run.folder}: {dist.world()} process(es) x {run.accumulation} x {run.state['micro_batch']} images, "
        f"{run.accelerator.device}, {torch.get_num_threads()} threads, decoder {run.state['decoder']}; "
        f"{config.model.backbone}, {parameters / 1e6:.2f} M parameters with {run.state['num_classes']} identities; "
        f"steps {run.start_step} to {run.total_steps}"
    )
