"""Shards -> images per second of this loader and of others, beside what libjpeg-turbo alone decodes.

    python benchmarks/loader.py                       # draws its own images
    python benchmarks/loader.py --shards shards/NAME  # any shard set whose images have one size

Method and results: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import loaders, peers  # noqa: E402 - after the path that makes them importable
from benchmarks.case import Case  # noqa: E402
from benchmarks.check import Checker  # noqa: E402
from benchmarks.inputs import describe_images, prepare  # noqa: E402
from benchmarks.report import print_table, summarise  # noqa: E402
from fastface.spelling import nearest  # noqa: E402

CASES: dict[str, Case] = loaders.CASES | peers.CASES
BATCH, SKIPPED = 128, 10  # images per batch; batches before the clock starts
LIMIT_S = 300  # a case that takes longer is ended; the slowest to start, FFCV, takes under 20
PACKAGES = {  # where package and module have different names
    "cv2": "opencv-python-headless",
    "nvidia.dali": "nvidia-dali-cuda130",
    "streaming": "mosaicml-streaming",
}


def main() -> None:
    """Prepare the inputs, run every case in its own process, print the table and append it to a file."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n\n")[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--shards", type=Path, help="a shard set to read; without it, images are drawn")
    parser.add_argument("--repeat-to", type=int, metavar="N", help="lay out the set's images again and again, N in all")
    parser.add_argument("--images", type=int, default=20_000, help="how many images to draw")
    parser.add_argument("--work", type=Path, help="keep what is laid out here for another run; else it is deleted")
    parser.add_argument("--threads", type=int, default=2, help="decoding threads, or worker processes, of each loader")
    parser.add_argument("--repeat", type=int, default=3, help="repetitions of each case; 0 only lays out the images")
    parser.add_argument("--seconds", type=float, default=1.5, help="how long each case is timed")
    parser.add_argument("--only", nargs="+", metavar="CASE", help="cases to run, by how their names begin")
    parser.add_argument("--without", nargs="+", metavar="CASE", default=[], help="cases to leave out, likewise")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/results/loader.jsonl", help="where to append")
    parser.add_argument("--note", default="", help="a remark to keep with the result")
    parser.add_argument("--case", help=argparse.SUPPRESS)  # set in the processes that this one starts
    options = parser.parse_args()
    if options.case:
        print(json.dumps(timed(options.case, options.work, options.threads, options.seconds)), flush=True)
        end()
    try:
        names = choose(options.only, options.without)
        if options.repeat_to is not None and options.shards is None:
            raise ValueError("--repeat-to repeats a shard set: name one with --shards; --images N draws N images")
    except ValueError as error:
        parser.error(str(error))
    names, missing = installed(names)
    for name, package in missing.items():
        print(f"{name}: left out, {package} is not installed (benchmarks/README.md says how)", file=sys.stderr)
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="fastface-bench-")))
        layouts = {layout for name in names for layout in CASES[name].reads}
        try:
            prepare(work.resolve(), options.shards, options.images, options.repeat_to, layouts)
        except ValueError as error:
            parser.error(str(error))
        results, failed = measure(names, options, work.resolve())
        images = describe_images(work)
    if not options.repeat:
        print(f"laid out in {work}: {images}")
        return
    if not results:
        sys.exit("no case gave a result")
    method = {"batch": BATCH, "skipped_batches": SKIPPED, "threads": options.threads, "seconds": options.seconds}
    method |= {"repeats_interleaved": options.repeat, "statistic": "median"}
    record = summarise(results, method=method, images=images, note=options.note)
    record |= {"left_out": missing, "failed": failed}
    print_table(record)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with open(options.out, "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    print(f"\nappended to {options.out}")
    if failed:
        sys.exit(f"without result in at least one repetition: {', '.join(failed)}")


def choose(only: list[str] | None, without: list[str]) -> list[str]:
    """Return the cases meant by beginnings of names; ValueError where a word means none."""

    def meant(words: Iterable[str]) -> set[str]:
        found: set[str] = set()
        for word in words:
            names = {name for name in CASES if name.startswith(word)}
            if not names:
                raise ValueError(f"no case begins with {word!r}{nearest(word, CASES)}; there are: {'; '.join(CASES)}")
            found |= names
        return found

    chosen = (meant(only) if only else set(CASES)) - meant(without)
    return [name for name in CASES if name in chosen]


def installed(names: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the cases that can run, and for each other one the package that it misses."""
    missing = {}
    for name in names:
        for module in CASES[name].needs:
            try:
                found = importlib.util.find_spec(module) is not None
            except ModuleNotFoundError:  # the package that the module is in
                found = False
            if not found:
                missing[name] = PACKAGES.get(module, module)
                break
    return [name for name in names if name not in missing], missing


def measure(
    names: list[str], options: argparse.Namespace, work: Path
) -> tuple[dict[str, list[dict[str, float]]], dict[str, int]]:
    """Run the cases in turn, and all of them again, `repeat` times; count the runs of each that gave no result."""
    results: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    failed: dict[str, int] = {}
    for number in range(options.repeat):
        for name in names:
            command = [sys.executable, __file__, "--case", name, "--work", str(work)]
            command += ["--threads", str(options.threads), "--seconds", str(options.seconds)]
            environment = os.environ | {"OMP_NUM_THREADS": "1"} | CASES[name].environment
            output, errors = run(command, environment)
            lines = [line for line in output.splitlines() if line.startswith("{")]
            if not lines:
                print(f"{name}: no result\n{errors[-2000:]}", file=sys.stderr)
                failed[name] = failed.get(name, 0) + 1
                continue
            result = json.loads(lines[-1])
            results[name].append(result)
            print(f"{number + 1}/{options.repeat} {name}: {result['images_s']:,.0f} images/s", file=sys.stderr)
    return {name: rows for name, rows in results.items() if rows}, failed


def run(command: list[str], environment: dict[str, str]) -> tuple[str, str]:
    """Run a command in a process group of its own; return its output and its errors, and end what it left."""
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        return process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        return "", f"ended after {LIMIT_S} s"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def timed(name: str, work: Path, threads: int, seconds: float) -> dict[str, float]:
    """Run one case: batches are taken for `seconds`, or to the end of its epoch if that comes first."""
    case = CASES[name]
    batches = case.build(work, threads, BATCH)  # imports what the case needs; the generator then starts its loader
    import_s = time.time() - psutil.Process().create_time()
    started = time.perf_counter()
    item = next(batches)
    first = time.perf_counter() - started
    check = Checker(work, case, BATCH)
    check(item)
    for _ in range(SKIPPED + case.epochs_before * (len(check.index) // BATCH)):
        item = next(batches)
    images, elapsed = 0, 0.0
    busy, own, clock = machine_s(), tree_s(), time.perf_counter()
    for item in batches:
        images += len(item[1])
        elapsed = time.perf_counter() - clock
        if elapsed >= seconds:
            break
    own, busy = tree_s() - own, machine_s() - busy
    check(item)
    return {
        "images_s": images / elapsed,
        "cpu_us": own / images * 1e6,
        "first_batch_s": first,
        "import_s": import_s,
        "images": images,
        "others_cores": max(0.0, busy - own) / elapsed,
    }


def tree_s() -> float:
    """Return the processor seconds of this process, its living descendants and those that have ended."""
    total = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            times: Any = process.cpu_times()
            total += times.user + times.system + times.children_user + times.children_system
    return total


def machine_s() -> float:
    """Return the seconds all cores have been busy or stolen since the start; 0 where /proc is not."""
    try:
        ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    except OSError:
        return 0.0
    return (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")


def end() -> None:
    """End this process and its workers at once: those of some loaders take seconds to end by themselves."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    os._exit(0)


if __name__ == "__main__":
    main()
