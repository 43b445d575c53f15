"""Memory of a training: an allocator that keeps what was freed, and a measure of what is held."""

from __future__ import annotations

import ctypes
import sys

import psutil
import torch

# <malloc.h> of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Let malloc keep freed blocks for the next step instead of returning them to the system; glibc only.

    A step on a CPU allocates the same buffers of tens of megabytes as the one before. Fetching their pages anew costs
    a third of the head's time (tests.benchmarks.epoch --no-keep-memory). It changes no number.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def reset_peak_memory(device: torch.device) -> None:
    """A new measurement starts."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """On a GPU the most that tensors took since the reset; on a CPU what this process alone holds now, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_full_info().uss) / 2**20
