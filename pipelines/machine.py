"""What the figures of a measurement hang on, and the highest memory of this process."""

from __future__ import annotations

import os
import platform
import resource
from pathlib import Path
from typing import Any

import torch


def describe() -> dict[str, Any]:
    """Processor, cores, threads, instruction set, GPU where there is one, and the version of torch."""
    found = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def forget_peak() -> None:
    """Let Linux count the highest resident memory anew; elsewhere what came before counts too."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text("5")


def peak() -> int:
    """The highest resident memory of this process in bytes, since `forget_peak`."""
    path = Path("/proc/self/status")
    lines = path.read_text().splitlines() if path.exists() else []
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    return 1024 * next(kilobytes, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())
