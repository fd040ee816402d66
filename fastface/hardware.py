"""Configuration and machine -> processes, device, precision, threads and decoder."""

import contextlib
import os
from collections.abc import Iterator
from importlib.util import find_spec

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs

from fastface.config import RunConfig


def memory_mb() -> tuple[float, float]:
    """Return what this process holds in memory and the most it has held, in 1e6 bytes; Linux."""
    with open("/proc/self/status", encoding="ascii") as file:
        told = dict(line.split(":", 1) for line in file)
    now, most = (int(told[key].split()[0]) * 1024 / 1e6 for key in ("VmRSS", "VmHWM"))
    return now, most


def start_processes(config: RunConfig) -> Accelerator:
    """Join the other processes, choose device, precision and thread count."""
    want = config.runtime.device
    if want.startswith("cuda:"):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError(f"runtime.device {want} names one GPU, and there are several processes: set it to auto")
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        number = int(want.removeprefix("cuda:"))
        names = visible.split(",") if visible else [str(n) for n in range(number + 1)]
        os.environ["CUDA_VISIBLE_DEVICES"] = names[number] if number < len(names) else ""
    if want.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f"runtime.device is {want} but torch sees no GPU; set runtime.device to cpu or auto")
    cpu = want == "cpu" or not torch.cuda.is_available()
    precision = config.train.precision
    if precision == "auto":
        precision = "bf16" if not cpu and torch.cuda.is_bf16_supported() else "fp32"
    ours = {"fp32": "no", "fp64": "no"}.get(precision, precision)
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if launcher not in ("no", ours):
        raise ValueError(
            f"the launcher asks for mixed precision {launcher}, the configuration for {precision}: "
            f"drop --mixed_precision, or set train.precision to {launcher}"
        )
    # Buffers are averaged by dist.average_buffers; gradients may view the all-reduce buckets.
    ddp = DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)
    accelerator = Accelerator(cpu=cpu, mixed_precision=ours, kwargs_handlers=[ddp])
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    torch.set_num_threads(config.runtime.threads or max((os.cpu_count() or 1) // local, 1))
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = config.train.tf32
    torch.backends.cudnn.benchmark = not config.train.deterministic
    if config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    return accelerator


def decoder_of(config: RunConfig, device: torch.device) -> str:
    if config.data.decoder != "auto":
        return config.data.decoder
    if device.type == "cuda":
        return "dali-gpu" if find_spec("nvidia") and find_spec("nvidia.dali") else "torch"
    return "torch"


def decode_threads_of(config: RunConfig, device: torch.device) -> int:
    if config.runtime.decode_threads or device.type == "cpu":
        return config.runtime.decode_threads or 2
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return min(max((os.cpu_count() or 2) // local - 1, 1), 16)


@contextlib.contextmanager
def memory_told(what: str, remedy: str) -> Iterator[None]:
    """Let a device's "out of memory" end in one sentence: what did not fit, torch's figures, what to do."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        figures = str(error).split(". If ")[0].split("\n")[0].strip().rstrip(".")
        raise ValueError(f"out of memory: {what} does not fit ({figures}). {remedy}") from None
