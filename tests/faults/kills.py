"""Kill processes of a study at random moments; it must resume and end with the results of an undisturbed study.

    python -m tests.faults.kills --points 30              # 30 studies, killed once each: about 30 minutes
    python -m tests.faults.kills --minutes 30             # a soak test: studies that are killed repeatedly

At each point the driver, a worker process or the MLflow server is killed with SIGKILL at a random moment. The server is
restarted, and the same command is repeated until it succeeds. Then `doctor` must report no problem, and all results,
including the champion's weights, must equal those of the undisturbed study. Prints a line per point and one JSON line.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cyclopts
import psutil
import torch
from mlflow import MlflowClient

from tests.parts import SMALL, empty_store, make_part, make_textures
from tests.servers import MlflowServer, mlflow_server

Victim = Literal["driver", "worker", "server"]
VICTIMS: tuple[Victim, ...] = ("driver", "worker", "server")
TRIALS, FINALISTS, SEEDS, EPOCHS = 4, 1, 2, 3
UNREPEATABLE = ("seconds", "cost/", "latency", "memory")
"""Parts of the names of metrics that differ between runs."""
TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Workspace:
    """A folder with images, and with the folders of the studies that use them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Workspace:
        """Create noise images and textures."""
        make_part(folder / "d", train=8)
        make_textures(folder / "t")
        return cls(folder)


@dataclass(frozen=True)
class Study:
    """One study, with its own results folder and MLflow store."""

    workspace: Workspace
    name: str
    epochs: int = EPOCHS

    @property
    def results(self) -> Path:
        """Folder of the results and the store."""
        return self.workspace.folder / self.name

    def command(self, uri: str) -> list[str]:
        """Return the command that starts or resumes the study."""
        flags = f"--category part --data-root {self.workspace.folder}/d --textures {self.workspace.folder}/t --study s "
        flags += f"--results {self.results} --tracking-uri {uri} --space default --trials {TRIALS} --seeds {SEEDS} "
        flags += f"--finalists {FINALISTS} --max-concurrent 1 {SMALL.replace('--epochs 1', f'--epochs {self.epochs}')}"
        return [sys.executable, "-m", "las_tune", *flags.split()]

    def start(self, uri: str) -> subprocess.Popen[str]:
        """Start the command."""
        return subprocess.Popen(
            self.command(uri), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def finish(self, uri: str) -> None:
        """Repeat the command until it succeeds."""
        for _ in range(3):
            process = self.start(uri)
            printed, _ = process.communicate(timeout=TIMEOUT_S)
            if process.returncode == 0:
                return
        raise AssertionError(printed)

    def numbers(self, uri: str) -> dict[str, Any]:
        """Return all results that faults must not change: trials, decision, weights and MLflow runs."""
        lines = [json.loads(line) for line in (self.results / "s/trials.jsonl").read_text().splitlines()]
        ended = {line["trial"]["number"]: line["trial"] for line in lines if line["event"] == "ended"}
        summary = json.loads((self.results / "s/summary.json").read_text())
        head = torch.load(self.results / "s/best_model_part.pth", weights_only=True)["head"]
        names = ("params", "status", "reason", "finalist", "seed")
        return {
            "trials": {n: [trial[name] for name in names] for n, trial in sorted(ended.items())},
            "epochs": {n: [_repeatable(row) for row in trial["epochs"]] for n, trial in sorted(ended.items())},
            "ends": len([line for line in lines if line["event"] == "ended"]),
            "promotion": summary["promotion"],
            "test": summary["test_mean"],
            "openings": summary["test_openings"],
            "weights": {name: tensor.double().sum().item() for name, tensor in head.items()},
            "runs": self._runs(uri),
        }

    def _runs(self, uri: str) -> dict[str, Any]:
        """Return status, parameters and metrics by step of every run."""
        client = MlflowClient(uri)
        experiment = client.get_experiment_by_name("las_tune")
        assert experiment is not None
        found: dict[str, Any] = {}
        for run in client.search_runs([experiment.experiment_id], max_results=1000):
            name = run.data.tags.get("trial", "study")
            assert name not in found, f"two runs of {name}"
            metrics = {
                metric: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, metric))
                for metric in _repeatable(run.data.metrics)
            }
            params = {param: value for param, value in run.data.params.items() if param != "command"}
            found[name] = [run.info.status, run.data.tags["status"], params, metrics]
        versions = client.search_model_versions("name = 'las-part'")
        return found | {"versions": len(versions)}


def _repeatable(numbers: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in numbers.items() if not any(part in name for part in UNREPEATABLE)}


def doctor_command(study: Study, uri: str, *flags: str) -> list[str]:
    """Return the `doctor` command of a study."""
    command = [sys.executable, "-m", "las_tune", "doctor", "--study", "s", "--results", str(study.results)]
    return [*command, "--tracking-uri", uri, *flags]


def doctor(study: Study, uri: str) -> str:
    """Return the output of `doctor`; raise AssertionError if it reports a problem."""
    done = subprocess.run(doctor_command(study, uri), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill(victim: Victim, driver: subprocess.Popen[str], server: MlflowServer) -> str:
    """Kill a process of the given kind, and return what was killed."""
    if victim == "server":
        server.kill()
        return "server"
    if victim == "worker":
        family = psutil.Process(driver.pid).children(recursive=True)
        workers = [process for process in family if process.is_running() and _is_worker(process)]
        if not workers:
            return "no worker yet"
        workers[0].kill()
        return "worker"
    driver.kill()
    driver.wait()
    return "driver"


def _is_worker(process: psutil.Process) -> bool:
    try:
        return process.cmdline()[:1] != [] and process.cmdline()[0].startswith("ray::")
    except psutil.Error:
        return False


def run_with_kills(study: Study, victim: Victim, moments: list[float], server: MlflowServer) -> list[str]:
    """Run a study, kill a victim at each moment (seconds after the latest start), and finish the study."""
    killed = []
    driver = study.start(server.uri)
    for moment in moments:
        ends = time.monotonic() + moment
        while time.monotonic() < ends and driver.poll() is None:
            time.sleep(0.02)
        if driver.poll() is not None:
            killed.append("too late")
            break
        killed.append(kill(victim, driver, server))
        if victim == "server":
            time.sleep(2.0)
            server.start()
        if driver.poll() is not None:
            driver = study.start(server.uri)
    driver.communicate(timeout=TIMEOUT_S)
    if driver.returncode:
        study.finish(server.uri)
    return killed


def make_server(folder: Path) -> Any:
    """Start an MLflow server with its own store."""
    folder.mkdir()
    (folder / "server.db").write_bytes(empty_store())
    return mlflow_server(folder)


def run_undisturbed(workspace: Workspace) -> tuple[dict[str, Any], float]:
    """Run a study without faults, and return its results and its duration in seconds."""
    study = Study(workspace, "whole")
    with make_server(study.results) as server:
        began = time.monotonic()
        study.finish(server.uri)
        took = time.monotonic() - began
        doctor(study, server.uri)
        return study.numbers(server.uri), took


def main(*, points: int = 0, minutes: float = 0.0, seed: int = 0) -> None:
    """Kill processes of studies and compare the results.

    Parameters
    ----------
    points
        Number of studies that are killed once; the killed process alternates.
    minutes
        Duration of the soak test, in which each study is killed three times.
    seed
        Random seed of the moments.
    """
    draw = random.Random(seed)
    print("seed", seed, flush=True)
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        workspace = Workspace.make(Path(name))
        expected, took = run_undisturbed(workspace)
        print(f"undisturbed: {took:.1f} s", flush=True)
        deadline, number = time.monotonic() + minutes * 60, 0
        while number < points or time.monotonic() < deadline:
            victim = VICTIMS[number % len(VICTIMS)]
            moments = [draw.uniform(0, took) for _ in range(1 if number < points else 3)]
            study = Study(workspace, f"{number:03}")
            with make_server(study.results) as server:
                killed = run_with_kills(study, victim, moments, server)
                doctor(study, server.uri)
                found = study.numbers(server.uri)
            assert found == expected, differences(expected, found)
            for process in killed:
                counts[process] = counts.get(process, 0) + 1
            at = ", ".join(f"{moment:.1f} s" for moment in moments)
            print(f"{number:3} {victim} at {at}: {', '.join(killed)}; clean, equal results", flush=True)
            number += 1
    print(json.dumps({"studies": number, "killed": counts, "seed": seed}))


def differences(expected: Any, found: Any, where: str = "") -> str:
    """Return the differences of two results, one per line."""
    if isinstance(expected, dict) and isinstance(found, dict):
        keys = [*expected, *(key for key in found if key not in expected)]
        parts = [differences(expected.get(key), found.get(key), f"{where}/{key}") for key in keys]
        return "\n".join(part for part in parts if part)
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        parts = [differences(*pair, f"{where}/{index}") for index, pair in enumerate(zip(expected, found, strict=True))]
        return "\n".join(part for part in parts if part)
    return "" if expected == found else f"{where}: {expected} became {found}"[:300]


if __name__ == "__main__":
    app = cyclopts.App()
    app.default(main)
    app()
