"""What a worker's machine does while it trains, measured by MLflow's own monitors under MLflow's names."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from las_tune.config.trial_record import SYSTEM

INTERVAL_S = 1.0


class SystemMetrics(threading.Thread):
    """Samples processors, memory, disk, network, and GPUs where there are any; a daemon."""

    def __init__(self) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        except (ImportError, RuntimeError):  # how MLflow says that there is no GPU
            logging.getLogger(__name__).debug("no GPU to measure")
        self._lock = threading.Lock()

    def run(self) -> None:
        """Sample."""
        while True:
            with self._lock:
                self._sample()
            time.sleep(INTERVAL_S)

    def _sample(self) -> None:
        for monitor in self._monitors:
            monitor.collect_metrics()

    def take(self) -> dict[str, float]:
        """Means since the last call, by MLflow's names of system metrics."""
        numbers: dict[str, float] = {}
        with self._lock:
            self._sample()
            for monitor in self._monitors:
                numbers |= {f"{SYSTEM}{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
                monitor.clear_metrics()
        return numbers
