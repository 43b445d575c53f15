"""System metrics of a worker during training, from MLflow's own monitors and under MLflow's names."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor

from las_tune.config import SYSTEM_PREFIX

INTERVAL_S = 1.0


class SystemMetrics(threading.Thread):
    """Daemon thread that samples CPU, memory, disk, network and, if available, GPU."""

    def __init__(self) -> None:
        super().__init__(name="system-metrics", daemon=True)
        self._monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
        try:
            self._monitors.append(GPUMonitor())
        except (ImportError, RuntimeError):  # raised by MLflow if there is no GPU
            logging.getLogger(__name__).debug("no GPU to monitor")
        self._lock = threading.Lock()

    def run(self) -> None:
        """Sample until the process ends."""
        while True:
            with self._lock:
                self._sample()
            time.sleep(INTERVAL_S)

    def _sample(self) -> None:
        for monitor in self._monitors:
            monitor.collect_metrics()

    def take(self) -> dict[str, float]:
        """Return the means since the last call, by MLflow's names of system metrics."""
        means: dict[str, float] = {}
        with self._lock:
            self._sample()
            for monitor in self._monitors:
                aggregated = monitor.aggregate_metrics()
                means |= {f"{SYSTEM_PREFIX}{name}": float(value) for name, value in aggregated.items()}
                monitor.clear_metrics()
        return means
