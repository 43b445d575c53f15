from __future__ import annotations

import subprocess
import sys

import torch

from las_tune.las.backbone import Backbone
from las_tune.las.memory import keep_freed_memory, peak_memory_mb
from las_tune.las.train import TrainData, head_precision, train
from tests.las.conftest import SPEC, run


def test_memory_is_measured_and_never_falls(backbone: Backbone, data: TrainData) -> None:
    held = [result.peak_memory_mb for result in train(SPEC, backbone, data)]
    assert all(50 < mb < 100_000 for mb in held)
    assert held == sorted(held)


def test_what_is_held_is_seen() -> None:
    before = peak_memory_mb(torch.device("cpu"))
    block = torch.ones(64, 2**20 // 4)  # 64 MiB
    assert 60 < peak_memory_mb(torch.device("cpu")) - before < 80
    del block


def test_keeping_freed_memory_keeps_it_and_changes_no_number(backbone: Backbone, data: TrainData) -> None:
    script = """
        import torch
        from las_tune.las.memory import keep_freed_memory, peak_memory_mb
        cpu = torch.device("cpu")
        if {keep}: keep_freed_memory()
        before = peak_memory_mb(cpu)
        block = torch.ones(64, 2**20 // 4)
        del block
        print(peak_memory_mb(cpu) - before)
    """
    held = {}
    for keep in (True, False):
        code = "\n".join(line.strip() for line in script.format(keep=keep).splitlines())
        held[keep] = float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    if sys.platform == "linux":
        assert held[True] > 60 and held[False] < 10
    before = run(SPEC, backbone, data)
    keep_freed_memory()
    assert run(SPEC, backbone, data) == before


def test_head_precision_is_set_for_the_head_alone() -> None:
    setting = torch.backends.cuda.matmul
    before = setting.fp32_precision
    with head_precision("tf32"):
        assert setting.fp32_precision == "tf32"
        with head_precision("float32"):
            assert setting.fp32_precision == "ieee"
        assert setting.fp32_precision == "tf32"
    assert setting.fp32_precision == before
