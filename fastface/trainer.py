"""The one loop: Run -> trained weights, with saves, evaluations and an orderly end."""

import contextlib
import gc
from typing import Any

import torch

from fastface import checkpoint, dist
from fastface.data.damage import Bad
from fastface.durable import append_csv
from fastface.evaluation import OpenedSets
from fastface.hardware import memory_mb, memory_told
from fastface.kinds import build_evaluators
from fastface.log import Log
from fastface.metrics.verification import metric_direction
from fastface.refresh import refresh_of
from fastface.rehearsal import can_run_out, fit_micro_batch
from fastface.resharding import whole_model, whole_optimizer
from fastface.run import Run
from fastface.run_picture import try_draw
from fastface.step import FiniteGuard, NotFiniteError, train_step
from fastface.timing import Stopwatch

PREEMPTED = 75
"""Exit code of a run that was asked to stop, saved and ended (EX_TEMPFAIL: try again, with --resume)."""


def train(run: Run) -> int:
    """Train to the end, or until asked to stop; return the exit code.

    Raises:
        FloatingPointError: when a loss or gradient is not finite; no checkpoint is written after that.
    """
    config = run.config
    stop = dist.StopRequest()
    watch = run.task.watch = Stopwatch(run.accelerator.device)
    log = Log(
        run.folder,
        start_step=run.start_step,
        total_steps=run.total_steps,
        every_steps=config.log.every_steps,
        images_per_step=config.train.batch_size,
        board=config.log.tensorboard,
        every_percent=config.log.every_percent,
        watch=watch,
        collapsed_loss=run.task.collapsed_loss,
    )
    try:
        introduce(run, log)
        if run.start_step == 0 and can_run_out(run.accelerator.device):
            fit_micro_batch(run, log.say)
        evaluators = build_evaluators(config.eval, run.state["card"], run.accelerator.device)
        return loop(run, stop, log, evaluators, watch)
    except NotFiniteError as error:
        raise FloatingPointError(f"{error}{dump_images(run, error.step)}") from None
    finally:
        report_damage(run, log)
        if dist.is_main() and log.done:
            try_draw(run.folder, log.say)
        run.loader.close()
        log.close()
        stop.close()


def loop(run: Run, stop: dist.StopRequest, log: Log, evaluators: OpenedSets[Any], watch: Stopwatch) -> int:
    config, done = run.config, run.start_step
    eval_steps = steps_of(run, config.eval.every_epochs) if evaluators else None
    keep_steps = steps_of(run, config.checkpoint.keep_every_epochs)
    guard = FiniteGuard(run.accelerator.device)
    saved_at = done if done else None
    patience, micro = config.eval.patience, run.state["micro_batch"]
    # BatchNorm depends on it, so that of a run under way is not changed behind anyone's back.
    smaller = (
        f"Lower train.micro_batch to a divisor of {micro}; --resume goes on from the last checkpoint, if there is one"
    )
    if done >= run.total_steps or (patience and run.best.get("waited", 0) >= patience):
        log.say("nothing left to train: the run was complete")
        return 0
    log.resume_clock()
    refresh, until = refresh_of(run), done
    run.task.train()
    while done < run.total_steps:
        if done == until:  # batches are made ahead, but never beyond a step at which they become others
            if refresh is not None and refresh.due(done):
                guard.check()
                with watch("mining"), memory_told("mining the plan's neighbours", "Lower eval.batch_size"):
                    refresh(done, log)
            until = min(refresh.next(done), run.total_steps) if refresh is not None else run.total_steps
            batches = run.loader.batches(start=done, stop=until)
        waited = run.loader.timings.wait_s
        with memory_told(f"step {done + 1}, with {micro} images a forward pass,", smaller):
            terms, norm = train_step(run, batches, done, guard, watch)
        done += 1
        log.step(done, {**terms, "grad_norm": norm}, run.schedule(done - 1), run.loader.timings.wait_s - waited)
        last = done == run.total_steps
        if done % config.log.every_steps == 0 or last:
            guard.check()
            report_damage(run, log)
        if evaluators and (last or (eval_steps and done % eval_steps == 0)):
            guard.check()
            improved = evaluate(run, evaluators, log, done)
            if improved:  # the best checkpoint is the one that was measured
                save(run, done, log)
                saved_at = done
            if patience and run.best.get("waited", 0) >= patience:
                log.say(f"no better {config.eval.best_metric} for {patience} evaluations: stopping early")
                last = True
        asked = stop.agreed()
        due = done % config.checkpoint.every_steps == 0 or (keep_steps and done % keep_steps == 0)
        if saved_at != done and (asked or last or due):
            guard.check()
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
    most, imported = memory_mb()[1], run.imported_mb
    log.say(f"memory: {imported:,.0f} MB after the imports, {most:,.0f} MB at most: {most - imported:+,.0f} MB")
    if dist.is_main():
        memory = {"imported_mb": imported, "most_mb": most}
        checkpoint.write_json(run.folder / "summary.json", {"steps": done, **summary, **memory, "best": run.best})
    return 0


def steps_of(run: Run, epochs: float | None) -> int | None:
    """Turn epochs, or a fraction of one, into steps, at least one."""
    return max(round(epochs * run.steps_per_epoch), 1) if epochs else None


def evaluate(run: Run, evaluators: OpenedSets[Any], log: Log, done: int) -> bool:
    """Evaluate on all processes, log, and say whether this is the best so far."""
    log.flush()
    with run.average.applied() if run.average is not None else contextlib.nullcontext():
        with memory_told(f"evaluation of {run.config.eval.batch_size} images at a time", "Lower eval.batch_size"):
            values = evaluators.run(run.task.deploy())
    log.metrics(done, values)
    log.say(f"step {done}: " + "  ".join(f"{k} {v:.4f}" for k, v in values.items() if k in evaluators.headline))
    if dist.is_main():
        try_draw(run.folder, log.say)
        gc.collect()  # a figure is a cycle of objects: each evaluation kept 12 MB until the collector came by
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
    model = whole_model(run.task)
    optimizer = whole_optimizer(getattr(run.optimizer, "optimizer", run.optimizer), run.task)
    if dist.is_main():
        scaler = run.accelerator.scaler
        state = {**run.state, "best": run.best, "scaler": scaler.state_dict() if scaler is not None else None}
        keep_steps = steps_of(run, run.config.checkpoint.keep_every_epochs)
        kept = {*range(keep_steps, done, keep_steps)} if keep_steps else set()
        path = checkpoint.save(
            run.folder / "checkpoints",
            done,
            model,
            optimizer,
            state,
            average=run.average.state_dict() if run.average is not None else None,
            keep=run.config.checkpoint.keep,
            protect={*kept, *([run.best["step"]] if run.best else [])},
        )
        if run.best:
            checkpoint.write_json(run.folder / "best.json", run.best)
        log.say(f"saved {path}")
    dist.barrier()
    log.resume_clock()


def dump_images(run: Run, step: int) -> str:
    """List the images of a step in nonfinite.csv, and say so."""
    if not dist.is_main():
        return ""
    path = run.folder / "nonfinite.csv"
    records = run.plan[step].records
    labels = run.index.labels_of(records)
    identities = [run.index.classes[label] for label in labels.tolist()]
    rows = [[str(step + 1), str(record), name] for record, name in zip(records.tolist(), identities, strict=True)]
    append_csv(path, ["step", "record", "identity"], rows)
    return f". Its {len(rows)} images are listed in {path}"


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


def introduce(run: Run, log: Log) -> None:
    """Say what is about to happen."""
    config = run.config
    for note in run.notes:
        log.say(note)
    head = sum(p.numel() for p in run.task.parameters()) - sum(p.numel() for p in run.task.backbone.parameters())
    log.say(
        f"{run.folder}: {dist.world()} process(es) x {run.accumulation} x {run.state['micro_batch']} images, "
        f"{run.accelerator.device}, {torch.get_num_threads()} threads, decoder {run.state['decoder']}; "
        f"{run.about}; task {config.task.name}, {head / 1e6:.2f} M parameters that do not ship, "
        f"{run.state['num_classes']} {run.task.calls_classes}; steps {run.start_step} to {run.total_steps}"
    )
