"""An epoch reads nothing back from the device; otherwise the host would wait for the GPU at every step."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from las_tune.las.backbone import Backbone
from las_tune.las.training import TrainData, Training, train_epoch
from tests.las.conftest import SPEC

READS_BACK = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "unique", "_unique2"}
"""Operations whose result or shape the host needs."""


class Recorder(TorchDispatchMode):
    """Records the names of the dispatched operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("foreground", ["otsu", "none"])
@pytest.mark.parametrize("stored", [True, False])
def test_epoch_reads_nothing_back(foreground: str, stored: bool, backbone: Backbone, data: TrainData) -> None:
    spec = SPEC.replace(foreground=foreground)
    training = Training(spec, backbone.channels, torch.device("cpu"))
    # On a CPU, Adam reads its step count; the fused Adam on a GPU does not.
    training.optimizers = [torch.optim.SGD(training.head.parameters(), 1e-3)]  # type: ignore[list-item]
    if not stored:
        data = dataclasses.replace(data, features=dataclasses.replace(data.features, maps=None))
    with Recorder() as recorder:
        train_epoch(training, spec, backbone, data)
    assert not recorder.names & READS_BACK
    assert "convolution" in recorder.names, "the recorder saw the epoch"


def test_recorder_detects_a_read() -> None:
    with Recorder() as recorder:
        float(torch.ones(1))
        torch.ones(3)[torch.tensor([True, False, True])]
    assert recorder.names & READS_BACK
