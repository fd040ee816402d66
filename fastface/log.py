"""What a step reports -> console, metrics.jsonl (a line per step), log.txt and TensorBoard."""

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
from fastface.durable import write_durably


class Log:
    """Collects device tensors without waiting for them; every `every_steps` they are fetched and written.

    Each step has its own line in metrics.jsonl, so the file of a resumed run equals that of one never stopped.
    All ranks must call `step` and `flush` alike (a flush averages over the ranks); rank 0 writes.
    """

    def __init__(
        self, folder: Path, *, start_step: int, total_steps: int, every_steps: int, images_per_step: int, board: bool
    ) -> None:
        self.folder = folder
        self.total_steps = total_steps
        self.every_steps = every_steps
        self.images_per_step = images_per_step
        self._names: list[str] = []
        self._rows: list[Tensor] = []
        self._rates: list[float] = []
        self._first = self._last = start_step
        self._since = time.perf_counter()
        self._wait_s = 0.0
        self._images, self._seconds, self._waited = 0, 0.0, 0.0
        self._said_percent = -1
        self._writer: Any = None
        self._bar: Any = None
        self._text: Any = None
        if dist.is_main():
            self._text = (folder / "log.txt").open("a", encoding="utf-8")
            _cut_after(folder / "metrics.jsonl", start_step)
            if board:
                from torch.utils.tensorboard import SummaryWriter

                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=start_step + 1)
            if sys.stderr.isatty():
                self._bar = tqdm(total=total_steps, initial=start_step, unit="step", dynamic_ncols=True)

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
        self._names = list(terms)
        self._rows.append(torch.stack([value.detach().double() for value in terms.values()]))
        self._rates.append(lr)
        self._wait_s += wait_s
        self._last = done
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
        mean = dict(zip(self._names, table.mean(0).tolist(), strict=True))
        if dist.is_main():
            lines = []
            for i, row in enumerate(table.tolist()):
                lines.append({"step": first + i, "lr": self._rates[i], **dict(zip(self._names, row, strict=True))})
            _append(self.folder / "metrics.jsonl", lines)
            self._show({**mean, "lr": self._rates[-1]}, speed)
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

    def _show(self, mean: dict[str, float], speed: dict[str, float]) -> None:
        if self._writer is not None:
            for key, value in {**mean, **speed}.items():
                self._writer.add_scalar(f"train/{key}", value, self._last)
        line = f"loss {mean['loss']:.4f}  " + "  ".join(
            f"{k} {v:.4g}" for k, v in mean.items() if k not in ("loss", "grad_norm")
        )
        line += f"  {speed['images_per_s']:,.0f} images/s  data wait {speed['data_wait']:.1%}"
        percent = 100 * self._last // self.total_steps
        if self._bar is not None:
            self._bar.set_postfix_str(line)
            self._bar.update(self._last - self._bar.n)
        elif percent // 5 > self._said_percent // 5 or self._last == self.total_steps:
            print(f"[{percent:3d} %] step {self._last}/{self.total_steps}  {line}", flush=True)
            self._said_percent = percent
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
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            break  # only the last line can be torn: each append is fsynced whole
    write_durably(path, "".join(line + "\n" for line in kept).encode())
