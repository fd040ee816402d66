"""A training configuration -> where its time goes on this machine, and one sentence on what to change.

    python benchmarks/doctor.py --config configs/lfw.yaml                  # overrides as train.py takes them:
    python benchmarks/doctor.py --config configs/lfw.yaml --seconds 60 --data.decoder dali-cpu

Nothing is kept: the run's folder is temporary, the weights go nowhere. Method: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import copy
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402

from benchmarks.common import DecodeOnly, append, others_s  # noqa: E402
from benchmarks.diagnosis import Figures, diagnose  # noqa: E402
from benchmarks.peaks import peak, wait  # noqa: E402
from benchmarks.report import circumstances, cpu_name  # noqa: E402
from fastface.command import parse_command  # noqa: E402
from fastface.data.batch import Batch  # noqa: E402
from fastface.data.kernels import kernels  # noqa: E402
from fastface.data.shards import ShardReader  # noqa: E402
from fastface.hardware import decode_threads_of  # noqa: E402
from fastface.models.gmacs import count_gmacs  # noqa: E402
from fastface.run import Run, build_run  # noqa: E402
from fastface.step import FiniteGuard, train_step  # noqa: E402
from fastface.timing import silent  # noqa: E402

ROUNDS = 3  # each rate is measured so often, in turn with the others; the median counts


def main(arguments: list[str] | None = None) -> int:
    """Build the run as train.py would, measure its parts in turn, print table and sentence."""
    parser = argparse.ArgumentParser(
        prog="doctor.py",
        description=(__doc__ or "").split("\n\n")[0],
        epilog="--config FILE... and all overrides are those of train.py; one process is examined.",
        allow_abbrev=False,
    )
    parser.add_argument("--seconds", type=float, default=24.0, help="how long to measure, the start not counted (24)")
    parser.add_argument("--out", type=Path, help="a file to append the figures to, as a JSON line")
    parser.add_argument("--note", default="", help="a remark to keep with them")
    options, rest = parser.parse_known_args(arguments)
    command = parse_command(rest)
    with tempfile.TemporaryDirectory(prefix="fastface-doctor-") as folder:
        command = command._replace(config=command.config.model_copy(update={"out": Path(folder)}), resume=None)
        try:
            run = build_run(command)
        except ValueError as error:
            print(f"doctor.py: {error}", file=sys.stderr)
            return 2
        try:
            doctor = Doctor(run, options.seconds)
            print(doctor.introduction(command.stem), flush=True)
            doctor.examine()
        finally:
            run.loader.close()
            run.lock.close()
    print(doctor.table())
    print("\n" + diagnose(doctor.figures()))
    if options.out:
        append(options.out, circumstances("doctor", options.note) | doctor.record(command.stem))
    return 0


class Taken(NamedTuple):
    """What one measurement saw."""

    images: int
    seconds: float
    waited: float = 0.0  # seconds of them without a batch


class Doctor:
    """Measure the parts of a run in turn: decoding alone, loader alone, network alone, and all together."""

    def __init__(self, run: Run, seconds: float) -> None:
        self.run, self.seconds = run, seconds
        self.device = run.accelerator.device
        self.threads = decode_threads_of(run.config, self.device)
        self.step = 0  # of the plan: every measurement goes on where the last one stopped
        self.guard = FiniteGuard(self.device)
        self.taken: dict[str, list[Taken]] = {}
        mixed = run.accelerator.mixed_precision
        self.precision = run.config.train.precision if mixed == "no" else mixed
        if self.precision == "auto":
            self.precision = "fp32"
        if self.precision == "fp32" and self.device.type == "cuda" and run.config.train.tf32:
            self.precision = "tf32"

    def examine(self) -> None:
        """Warm everything up, then measure in rounds."""
        run = self.run
        batches = run.loader.batches(start=0)
        micro = [self.keep(next(batches)) for _ in range(run.accumulation)]
        run.task.train()
        self.cached = [batch for batch, _ in micro]
        repeated = self.repeated()
        for _ in range(2):  # memory is allocated and kernels are chosen in the first, or compiled
            start = time.perf_counter()
            train_step(run, repeated, self.step, self.guard, silent)
            self.step += 1
            wait(self.device)
        slow = time.perf_counter() - start > self.seconds / (4 * ROUNDS)
        parts: dict[str, Callable[[float], Taken]] = {
            "decode_only": self.decode_only(),
            "loader_only": self.loader_only,
            "model_only": self.model_only,
            "end_to_end": self.end_to_end,
        }
        others, clock = others_s(), time.perf_counter()
        for _ in range(1 if slow else ROUNDS):
            for name, part in parts.items():
                self.taken.setdefault(name, []).append(part(self.seconds / (len(parts) * (1 if slow else ROUNDS))))
        self.others = max(0.0, (others_s() - others) / (time.perf_counter() - clock))
        self.peak, self.peak_source = peak(self.device, self.precision)

    @staticmethod
    def keep(batch: Batch) -> tuple[Batch, int]:
        """Copy a batch out of the loader's recycled memory."""
        return batch._replace(images=batch.images.clone(), labels=batch.labels.clone()), batch.micro

    def repeated(self) -> Iterator[Batch]:
        """Yield the kept batches for ever, as those of the steps from here on."""
        step = self.step
        while True:
            for micro, batch in enumerate(self.cached):
                yield batch._replace(step=step, micro=micro)
            step += 1

    def decode_only(self) -> Callable[[float], Taken]:
        work = DecodeOnly(ShardReader(self.run.loader.index), self.threads)

        def measure(seconds: float) -> Taken:
            start = time.perf_counter()
            images, _ = work(seconds)
            return Taken(images, time.perf_counter() - start)

        return measure

    def loader_only(self, seconds: float) -> Taken:
        loader = self.run.loader
        batches = loader.batches(start=self.step)
        for _ in range(2 * loader.ahead + loader.decoder.callers):  # those made while nobody took the time
            batch = next(batches)
        images, start, elapsed = 0, time.perf_counter(), 0.0
        while elapsed < seconds:
            batch = next(batches)
            images += len(batch.records)
            elapsed = time.perf_counter() - start
        self.step = batch.step + 1
        batches.close()  # type: ignore[attr-defined]
        return Taken(images, elapsed)

    def model_only(self, seconds: float) -> Taken:
        return self.train(self.repeated(), seconds)

    def end_to_end(self, seconds: float) -> Taken:
        batches = self.run.loader.batches(start=self.step)
        train_step(self.run, batches, self.step, self.guard, silent)  # the loader's threads are starting
        self.step += 1
        taken = self.train(batches, seconds)
        batches.close()  # type: ignore[attr-defined]
        return taken

    def train(self, batches: Iterator[Batch], seconds: float) -> Taken:
        run, steps, elapsed = self.run, 0, 0.0
        wait(self.device)
        waited, start = run.loader.timings.wait_s, time.perf_counter()
        while elapsed < seconds:
            train_step(run, batches, self.step, self.guard, silent)
            self.step, steps = self.step + 1, steps + 1
            elapsed = time.perf_counter() - start
        wait(self.device)  # a GPU is behind; what is queued must not be counted as done
        elapsed = time.perf_counter() - start
        images = steps * run.accumulation * run.state["micro_batch"]
        return Taken(images, elapsed, run.loader.timings.wait_s - waited)

    def flops(self) -> float:
        """Count the FLOP of forward and backward for one image: 3 products for each of the forward's, 2 FLOP each."""
        network = self.run.task.deploy()
        gmacs = count_gmacs(copy.deepcopy(network).float().to("meta"), self.run.config.data.size)
        shipped = {id(p) for p in network.parameters()}
        head = sum(p.numel() for p in self.run.task.parameters() if p.ndim == 2 and id(p) not in shipped)
        return 6 * (gmacs * 1e9 + head)

    def rate(self, name: str) -> float:
        return statistics.median(taken.images / taken.seconds for taken in self.taken[name])

    def figures(self) -> Figures:
        """Return what the sentence is chosen by."""
        together = self.taken["end_to_end"]
        return Figures(
            **{name: self.rate(name) for name in self.taken},
            wait_share=sum(t.waited for t in together) / sum(t.seconds for t in together),
            utilisation=self.rate("model_only") * self.flops() / self.peak,
            threads=self.threads,
            cores=len(os.sched_getaffinity(0)),
            on_gpu=self.device.type == "cuda",
            decoder=self.run.state["decoder"],
            compiled=self.device.type == "cuda" or kernels().name == "numba",
            others=self.others,
        )

    def introduction(self, stem: str) -> str:
        """Say what is examined, and where."""
        run, index = self.run, self.run.loader.index
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "no GPU"
        parameters = sum(p.numel() for p in run.task.parameters()) / 1e6
        lines = [
            f"{stem}: {run.config.model.backbone}, {parameters:.2f} M parameters with {index.num_classes:,} "
            f"identities, {self.precision}, {run.accumulation} x {run.state['micro_batch']} images a step",
            f"{cpu_name()}, {len(os.sched_getaffinity(0))} cores, {name}, {torch.get_num_threads()} threads of torch; "
            f"decoder {run.state['decoder']} with {self.threads}",
            f"{index.num_samples:,} images of {index.image_size[0]}x{index.image_size[1]}, "  # type: ignore[index]
            f"{float(index.length[:10_000].mean()) / 1000:.1f} kB each; measuring for {self.seconds:.0f} s",
        ]
        return "\n".join(lines)

    def table(self) -> str:
        """Return the figures, aligned."""
        f = self.figures()
        names = {
            "decode_only": f"decoding alone, {self.threads} threads",
            "loader_only": "loader alone",
            "model_only": "network alone",
            "end_to_end": "end to end",
        }
        lines = [f"\n{'':<28}{'images/s':>10}{'lowest':>10}{'highest':>10}{'of network alone':>19}"]
        for name, said in names.items():
            rates = [taken.images / taken.seconds for taken in self.taken[name]]
            numbers = f"{self.rate(name):>10,.0f}{min(rates):>10,.0f}{max(rates):>10,.0f}"
            lines.append(f"{said:<28}{numbers}{self.rate(name) / f.model_only:>18.2f}x")
        flops = self.flops()
        assert f.utilisation is not None
        lines += [
            f"{'waiting for data':<28}{f.wait_share:>10.1%} of the time end to end",
            f"{'model FLOP utilisation':<28}{f.utilisation:>10.1%} of {_si(self.peak)}FLOP/s ({self.peak_source}); "
            f"{_si(flops)}FLOP an image",
            f"{'other processes used':<28}{self.others:>10.2f} cores meanwhile",
        ]
        return "\n".join(lines)

    def record(self, stem: str) -> dict[str, Any]:
        """Return all that a line of results needs."""
        rates = {n: [round(t.images / t.seconds, 1) for t in taken] for n, taken in self.taken.items()}
        f = self.figures()
        return {
            "config": stem,
            "figures": {k: round(v, 4) if isinstance(v, float) else v for k, v in f._asdict().items()},
            "rates": rates,
            "peak_flops": self.peak,
            "peak_source": self.peak_source,
            "cores_used_by_others": round(self.others, 2),
            "sentence": diagnose(f),
        }


def _si(value: float) -> str:
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= unit:
            return f"{value / unit:,.1f} {name}"
    return f"{value:,.0f} "


if __name__ == "__main__":
    sys.exit(main())
