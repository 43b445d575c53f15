"""Memory of a training run: allocator settings and peak memory."""

from __future__ import annotations

import ctypes
import sys

import psutil
import torch

# <malloc.h> of glibc
_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Configure malloc to keep freed blocks instead of returning them to the system; only with glibc.

    Every step on a CPU allocates the same buffers of tens of megabytes. Requesting their pages again takes a third of
    the time of the head (tests.benchmarks.epoch --no-keep-memory). Results do not change.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl does not have it
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)
            mallopt(_M_MMAP_MAX, 0)
            mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


def reset_peak_memory(device: torch.device) -> None:
    """Start a new measurement of the peak memory."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_memory_mb(device: torch.device) -> float:
    """Return the memory in MiB: on a GPU the peak of all tensors since the reset, on a CPU the current use."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return float(psutil.Process().memory_full_info().uss) / 2**20
