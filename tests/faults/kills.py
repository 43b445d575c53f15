"""Whatever is killed, whenever: the study goes on, and ends with the numbers of one that nothing happened to.

    python -m tests.faults.kills --points 30              # each a study of its own, killed once: about 30 minutes
    python -m tests.faults.kills --minutes 30             # a soak: studies that are killed again and again

A point kills the driver, a worker process or the MLflow server, with -9, at a random moment of the study; the server is
started again, and the same command given until it ends well. Then `doctor` must find nothing, and all numbers, the
champion's weights included, must be those of the study that was left alone. Prints a line a point and one JSON line.
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
UNLIKE = ("seconds", "cost/", "latency", "memory")
"""In the names of numbers that no two runs share."""
LONGEST_S = 300.0


@dataclass(frozen=True)
class Place:
    """Images, shared by studies whose folders lie beside them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Place:
        """Noise images and textures."""
        make_part(folder / "d", train=8)
        make_textures(folder / "t")
        return cls(folder)


@dataclass(frozen=True)
class Study:
    """One study, with results and store of its own."""

    place: Place
    name: str
    epochs: int = EPOCHS

    @property
    def results(self) -> Path:
        """Its folder, and that of its store."""
        return self.place.folder / self.name

    def command(self, uri: str) -> list[str]:
        """What a user types, the first time and every other."""
        flags = f"--category part --data-root {self.place.folder}/d --textures {self.place.folder}/t --study s "
        flags += f"--results {self.results} --tracking-uri {uri} --space default --trials {TRIALS} --seeds {SEEDS} "
        flags += f"--finalists {FINALISTS} --max-concurrent 1 {SMALL.replace('--epochs 1', f'--epochs {self.epochs}')}"
        return [sys.executable, "-m", "las_tune", *flags.split()]

    def start(self, uri: str) -> subprocess.Popen[str]:
        """The command, as a process."""
        return subprocess.Popen(
            self.command(uri), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )

    def finish(self, uri: str) -> None:
        """Give the command until it ends well."""
        for _ in range(3):
            process = self.start(uri)
            printed, _ = process.communicate(timeout=LONGEST_S)
            if process.returncode == 0:
                return
        raise AssertionError(printed)

    def numbers(self, uri: str) -> dict[str, Any]:
        """All that must not depend on what happened: trials, the summary's choice, weights, MLflow's runs."""
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
        """Of every run its status, and all its numbers with their steps."""
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
    return {name: value for name, value in numbers.items() if not any(part in name for part in UNLIKE)}


def doctor_command(study: Study, uri: str, *flags: str) -> list[str]:
    """What a user types to compare the accounts of a study."""
    command = [sys.executable, "-m", "las_tune", "doctor", "--study", "s", "--results", str(study.results)]
    return [*command, "--tracking-uri", uri, *flags]


def doctor(study: Study, uri: str) -> str:
    """What `doctor` prints; AssertionError where it finds anything."""
    done = subprocess.run(doctor_command(study, uri), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def kill(victim: Victim, driver: subprocess.Popen[str], server: MlflowServer) -> str:
    """Kill what there is of a victim; says what that was."""
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


def hit(study: Study, victim: Victim, moments: list[float], server: MlflowServer) -> list[str]:
    """Run a study and kill a victim at each of some moments, in seconds after its (last) start; then finish it."""
    told = []
    driver = study.start(server.uri)
    for moment in moments:
        ends = time.monotonic() + moment
        while time.monotonic() < ends and driver.poll() is None:
            time.sleep(0.02)
        if driver.poll() is not None:
            told.append("too late")
            break
        told.append(kill(victim, driver, server))
        if victim == "server":
            time.sleep(2.0)
            server.start()
        if driver.poll() is not None:
            driver = study.start(server.uri)
    driver.communicate(timeout=LONGEST_S)
    if driver.returncode:
        study.finish(server.uri)
    return told


def make_server(folder: Path) -> Any:
    """An MLflow server with a store of its own."""
    folder.mkdir()
    (folder / "server.db").write_bytes(empty_store())
    return mlflow_server(folder)


def untouched(place: Place) -> tuple[dict[str, Any], float]:
    """Numbers of a study that is left alone, and how long it took."""
    study = Study(place, "whole")
    with make_server(study.results) as server:
        began = time.monotonic()
        study.finish(server.uri)
        took = time.monotonic() - began
        doctor(study, server.uri)
        return study.numbers(server.uri), took


def main(*, points: int = 0, minutes: float = 0.0, seed: int = 0) -> None:
    """Kill.

    Parameters
    ----------
    points
        Kill points, one a study, the victims in turn.
    minutes
        How long to kill one study after another, three times each.
    seed
        Of the moments.
    """
    draw = random.Random(seed)
    print("seed", seed, flush=True)
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        place = Place.make(Path(name))
        expected, took = untouched(place)
        print(f"left alone: {took:.1f} s", flush=True)
        ends, number = time.monotonic() + minutes * 60, 0
        while number < points or time.monotonic() < ends:
            victim = VICTIMS[number % len(VICTIMS)]
            moments = [draw.uniform(0, took) for _ in range(1 if number < points else 3)]
            study = Study(place, f"{number:03}")
            with make_server(study.results) as server:
                told = hit(study, victim, moments, server)
                doctor(study, server.uri)
                found = study.numbers(server.uri)
            assert found == expected, differences(expected, found)
            for one in told:
                counts[one] = counts.get(one, 0) + 1
            at = ", ".join(f"{moment:.1f} s" for moment in moments)
            print(f"{number:3} {victim} at {at}: {', '.join(told)}; clean and equal", flush=True)
            number += 1
    print(json.dumps({"studies": number, "killed": counts, "seed": seed}))


def differences(expected: Any, found: Any, where: str = "") -> str:
    """Where two accounts differ, for a person."""
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
