"""What a step reports -> console, metrics.jsonl (a line a step), timings.jsonl (one a flush), log.txt, TensorBoard."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from fastface import dist
from fastface.collapse import Collapse
from fastface.durable import write_durably
from fastface.timing import Stopwatch

QUIET_S = 600.0
"""Where there is no progress bar, a step that ends after so long a silence says so, between the percents as well."""


class Log:
    """Collects device tensors without waiting for them; every `every_steps` they are fetched and written.

    Each step has its own line in metrics.jsonl, so the file of a resumed run equals that of one never stopped; what a
    clock measures (rank 0's) goes to timings.jsonl for that reason.
    All ranks must call `step` and `flush` alike (a flush averages over the ranks); rank 0 writes.

    every_percent: the console shows a line whenever so much more of the run is done. watch: times the parts of a
    step; `step` ends its step. collapsed_loss: the loss of equal embeddings, see `Collapse`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        start_step: int,
        total_steps: int,
        every_steps: int,
        images_per_step: int,
        board: bool,
        every_percent: float = 5.0,
        watch: Stopwatch | None = None,
        collapsed_loss: float | None = None,
    ) -> None:
        if not 0 < every_percent <= 100:
            raise ValueError(f"every_percent {every_percent} is not a share of the run: more than 0, at most 100")
        self.folder = folder
        self.total_steps = total_steps
        self.every_steps = every_steps
        self.images_per_step = images_per_step
        self.every_percent = every_percent
        self._watch = watch
        self._collapse = Collapse(collapsed_loss)
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._rates: list[float] = []
        self._first = self._last = start_step
        self._since = time.perf_counter()
        self._wait_s = 0.0
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._said_part = -1  # how many times every_percent the last line stood for
        self._said_at = self._since
        self._writer: Any = None
        self._bar: Any = None
        self._text: Any = None
        if dist.is_main():
            self._text = (folder / "log.txt").open("a", encoding="utf-8")
            _cut_after(folder / "metrics.jsonl", start_step)
            _cut_after(folder / "timings.jsonl", start_step)
            if board:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
            if sys.stderr.isatty():
                self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True)

    @property
    def done(self) -> int:
        """Steps completed, those before a resume included."""
        return self._last

    def say(self, text: str) -> None:
        """Print a line once, and keep it in log.txt."""
        if dist.is_main():
            self._text.write(text + "\n")
            self._text.flush()
            if self._bar is not None:
                self._bar.write(text)
            else:
                print(text, flush=True)

    def step(self, done: int, terms: dict[str, Tensor], lr: float, wait_s: float) -> None:
        """Note the terms (scalar tensors) of the step that made `done` steps complete."""
        if list(terms) != self._names:
            self.flush()  # a task may report other terms from some step on
        self._names = list(terms)
        if self._watch is not None:
            self._watch.end_step()
        self._rows.append(torch.stack([value.detach().double() for value in terms.values()]))
        self._rates.append(lr)
        self._wait_s += wait_s
        self._last = done
        if dist.is_main():
            self._live()
        if done % self.every_steps == 0 or done == self.total_steps:
            self.flush()

    def flush(self) -> dict[str, float]:
        """Fetch what was collected (the one wait for the device), write it, return the mean of the interval."""
        if not self._rows:
            return {}
        table = dist.mean(torch.stack(self._rows)).cpu()  # [steps, terms]
        seconds, self._since = time.perf_counter() - self._since, time.perf_counter()
        waited, self._wait_s = self._wait_s, 0.0
        first = self._last - len(table) + 1
        self._images += len(table) * self.images_per_step
        self._seconds += seconds
        self._waited += waited
        speed = {"images_per_s": len(table) * self.images_per_step / seconds, "data_wait": waited / seconds}
        parts = self._watch.take() if self._watch is not None else {}
        mean = dict(zip(self._names, table.mean(0).tolist(), strict=True))
        if dist.is_main():
            lines = []
            for i, row in enumerate(table.tolist()):
                lines.append({"step": first + i, "lr": self._rates[i], **dict(zip(self._names, row, strict=True))})
            _append(self.folder / "metrics.jsonl", lines)
            clock = {"step": self._last, "steps": len(table), "seconds": seconds, **speed, "parts_ms": parts}
            _append(self.folder / "timings.jsonl", [clock])
            self._show({**mean, "lr": self._rates[-1]}, speed, parts)
            warning = self._collapse.look(first, self._last, mean)
            if warning:
                self.say(warning)
        self._rows, self._rates = [], []
        return mean

    def metrics(self, done: int, values: dict[str, float]) -> None:
        """Write evaluation figures under their keys (lfw/acc ...)."""
        self.flush()
        if dist.is_main():
            _append(self.folder / "metrics.jsonl", [{"step": done, "eval": values}])
            for key, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(f"eval/{key}", value, done)
        self._since = time.perf_counter()  # evaluation time is not training time

    def mined(self, step: int, values: dict[str, float]) -> None:
        """Write the figures of neighbours that step `step` is the first to use."""
        self.flush()
        if dist.is_main():
            _append(self.folder / "metrics.jsonl", [{"step": step, "mined": values}])
            for key, value in values.items():
                if self._writer is not None:
                    self._writer.add_scalar(f"mined/{key}", value, step)

    def resume_clock(self) -> None:
        """Start the interval now: what was done meanwhile (saving, evaluating) does not count as training."""
        self._since = time.perf_counter()

    def summary(self) -> dict[str, float]:
        """Images/s and the share of time spent waiting for data, over all steps of this process."""
        seconds = max(self._seconds, 1e-9)
        return {"images_per_s": self._images / seconds, "data_wait": self._waited / seconds}

    def close(self) -> None:
        for target in (self._bar, self._writer, self._text):
            if target is not None:
                target.close()

    def _live(self) -> None:
        """Show that a step was done, without its values: fetching them would wait for the device.

        On a GPU it may still be running. tqdm redraws ten times a second at most; a call costs less than 1 us.
        """
        if self._bar is not None:
            self._bar.update(self._last - self._bar.n)
        elif time.perf_counter() - self._said_at > QUIET_S:
            self._print("")

    def _print(self, line: str) -> None:
        percent = 100 * self._last // self.total_steps
        print(f"[{percent:3d} %] step {self._last}/{self.total_steps}  {line}".rstrip(), flush=True)
        self._said_at = time.perf_counter()

    def _show(self, mean: dict[str, float], speed: dict[str, float], parts: dict[str, float]) -> None:
        if self._writer is not None:
            named = {f"train/{key}": value for key, value in mean.items()}
            named |= {f"timing/{key}": value for key, value in speed.items()}
            named |= {f"timing/{key}_ms": value for key, value in parts.items()}
            for key, value in named.items():
                self._writer.add_scalar(key, value, self._last)
        line = f"loss {mean['loss']:.4f}  " + "  ".join(
            f"{k} {v:.4g}" for k, v in mean.items() if k not in ("loss", "grad_norm")
        )
        line += f"  {speed['images_per_s']:,.0f} images/s  data wait {speed['data_wait']:.1%}"
        part = int(100 * self._last / self.total_steps / self.every_percent + 1e-9)
        if self._bar is not None:
            self._bar.set_postfix_str(line)
        elif part > self._said_part or self._last == self.total_steps:
            self._print(line)
            self._said_part = part
        self._text.write(f"step {self._last}/{self.total_steps}  {line}\n")
        self._text.flush()


def _append(path: Path, lines: list[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)
        file.flush()
        os.fsync(file.fileno())


def _cut_after(path: Path, step: int) -> None:
    """Drop the lines of steps after the restored one, and a line the interruption left half-written."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break  # only the last line can be torn: each append is fsynced whole
    write_durably(path, "".join(line + "\n" for line in kept).encode())
