from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from las_tune.las.backbone import Backbone
from las_tune.las.head import head_precision
from las_tune.las.memory import keep_freed_memory
from las_tune.las.training import TrainData, train
from tests.las.conftest import SPEC, run


def test_peak_memory_never_decreases(backbone: Backbone, data: TrainData) -> None:
    peaks = [result.peak_memory_mb for result in train(SPEC, backbone, data)]
    assert all(50 < mb < 100_000 for mb in peaks)
    assert peaks == sorted(peaks)


HOLD_AND_FREE = """
import torch
from las_tune.las.memory import keep_freed_memory, peak_memory_mb
cpu = torch.device("cpu")
if {keep}: keep_freed_memory()
before = peak_memory_mb(cpu)
block = torch.ones(64, 2**20 // 4)  # 64 MiB
print(peak_memory_mb(cpu) - before)
del block
print(peak_memory_mb(cpu) - before)
"""


@pytest.mark.parametrize("keep", [True, False])
def test_freed_memory_is_kept_on_demand(keep: bool) -> None:
    """Runs in separate processes, because the setting is permanent."""
    command = [sys.executable, "-c", HOLD_AND_FREE.format(keep=keep)]
    held, kept = map(float, subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())
    assert 60 < held < 80
    if sys.platform == "linux":
        assert kept > 60 if keep else kept < 10


def test_keeping_freed_memory_does_not_change_results(backbone: Backbone, data: TrainData) -> None:
    before = run(SPEC, backbone, data)
    keep_freed_memory()
    assert run(SPEC, backbone, data) == before


def test_head_precision_is_restored() -> None:
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    with head_precision("tf32"):
        assert setting.fp32_precision == "tf32"
        with head_precision("float32"):
            assert setting.fp32_precision == "ieee"
        assert setting.fp32_precision == "tf32"
    assert setting.fp32_precision == before
