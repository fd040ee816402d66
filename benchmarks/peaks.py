"""A device and a precision -> the arithmetic it could do at best, in FLOP/s, and where that figure is from."""

from __future__ import annotations

import re
import time

import torch

# TFLOP/s without sparsity, as NVIDIA's data sheets state them; bf16 and fp16 accumulate in fp32. tf32: fp32 matrix
# products on tensor cores. By the name torch gives, without NVIDIA, GeForce, Tesla, form factor and memory.
PEAKS: dict[str, dict[str, float]] = {
    "B200": {"bf16": 2250, "fp16": 2250, "tf32": 1100},
    "H200": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "H100 PCIe": {"bf16": 756, "fp16": 756, "tf32": 378, "fp32": 51},
    "H100": {"bf16": 989, "fp16": 989, "tf32": 494, "fp32": 67},
    "A100": {"bf16": 312, "fp16": 312, "tf32": 156, "fp32": 19.5},
    "L40S": {"bf16": 362, "fp16": 362, "tf32": 183, "fp32": 91.6},
    "L4": {"bf16": 121, "fp16": 121, "tf32": 60, "fp32": 30.3},
    "A10": {"bf16": 125, "fp16": 125, "tf32": 62.5, "fp32": 31.2},
    "V100": {"fp16": 125, "fp32": 15.7},
    "T4": {"fp16": 65, "fp32": 8.1},
    "RTX 4090": {"bf16": 165, "fp16": 165, "tf32": 82.6, "fp32": 82.6},
    "RTX 3090": {"bf16": 71, "fp16": 71, "tf32": 35.6, "fp32": 35.6},
}
TYPES = {"fp64": torch.float64, "fp32": torch.float32, "tf32": torch.float32}
TYPES |= {"bf16": torch.bfloat16, "fp16": torch.float16}


def peak(device: torch.device, precision: str) -> tuple[float, str]:
    """Return FLOP/s and their source: a data sheet, or else a matrix product measured on this machine."""
    if device.type == "cuda":
        stated = stated_peak(torch.cuda.get_device_name(device), precision)
        if stated is not None:
            return stated, "data sheet"
    where = f"{torch.get_num_threads()} threads" if device.type == "cpu" else "this GPU"
    return measured_peak(device, TYPES[precision]), f"{precision} matrix product measured here, {where}"


def stated_peak(name: str, precision: str) -> float | None:
    """Return what the data sheet says of a GPU by its name, FLOP/s; None where this table does not know it."""
    plain = re.sub(r"NVIDIA|GeForce|Tesla|-?SXM\d?|-PCIE|HBM\d\w?|-?\b\d+GB\b", "", name)
    figures = PEAKS.get(" ".join(plain.replace("-", " ").split()), {})
    return figures[precision] * 1e12 if precision in figures else None


def measured_peak(device: torch.device, dtype: torch.dtype, seconds: float = 0.5) -> float:
    """Multiply square matrices for some time; return the FLOP/s of the fastest product."""
    side = 8192 if device.type == "cuda" else 1024
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    best, end = 0.0, time.perf_counter() + seconds
    while best == 0.0 or time.perf_counter() < end:
        wait(device)
        start = time.perf_counter()
        torch.matmul(a, b)
        wait(device)
        best = max(best, 2 * side**3 / (time.perf_counter() - start))
    return best


def wait(device: torch.device) -> None:
    """Let the device finish what it was given; nothing to do on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
