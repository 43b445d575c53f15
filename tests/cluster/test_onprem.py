"""cluster/onprem.yaml on three simulated hosts: start, faults and shutdown.

The tests use one cluster and depend on their order.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from mlflow.entities import Run

from las_tune.config.study_spec import MAX_TRIALS
from tests.cluster.hosts import SHARED, USER, Host, Hosts
from tests.parts import make_part, make_textures
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(600)]
ROOT = Path(__file__).parents[2]
FILE = "cluster/onprem.yaml"
NAMES = ("las-head", "las-one", "las-two")
EPOCHS, TRIALS, FINALISTS = 6, 6, 4
"""Sizes of a study with faults. The finalists are one trial and the baseline, with two seeds each."""
SMALL = "--backbone resnet18 --backbone-weights random --image-size 32 --finalists 1 --seeds 2 --scheduler none"
EVERYWHERE = f"--address auto --tracking-uri http://127.0.0.1:5000 --storage {SHARED}/storage"
"""Flags of a study that uses all hosts."""
REQUEST = r"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n"
HEALTH = f"exec 3<>/dev/tcp/127.0.0.1/5000 && printf '{REQUEST}' >&3 && head -n 1 <&3"
ALIVE = """import ray
ray.init(address="auto", logging_level="ERROR", log_to_driver=False)
print([[n["NodeManagerHostname"], n["Resources"]["CPU"], n["Labels"]] for n in ray.nodes() if n["Alive"]])"""


@dataclass
class Cluster:
    """Three hosts, and the folder of a laptop on which `ray up` runs."""

    hosts: Hosts
    laptop: Path
    up: str = ""
    """Output of `ray up`."""
    cpus: int = 0
    """CPUs of each host."""

    @property
    def head(self) -> Host:
        return self.hosts.hosts[0]

    @property
    def workers(self) -> list[Host]:
        return self.hosts.hosts[1:]

    @property
    def checkout(self) -> Path:
        return self.laptop / "las_tune"

    def ray(self, *arguments: str, timeout_s: float = 300) -> str:
        """Run a Ray command in the laptop's checkout and return its output."""
        tmp = str(self.laptop / "tmp")
        own = {"HOME": str(self.laptop), "TMPDIR": tmp, "RAY_TMPDIR": tmp}
        own |= {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
        keep = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PYTHON"))}
        done = subprocess.run(
            ["ray", *arguments], cwd=self.checkout, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, timeout=timeout_s, check=False,
            env=keep | own,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-4000:]
        return done.stdout

    def run(self, host: Host, command: str, timeout_s: float = 120) -> str:
        """Run a command on a host, check that it succeeds, and return its output."""
        done = self.hosts.run(host, command, timeout_s)
        assert done.returncode == 0, f"{command}: {done.stdout[-2000:]}{done.stderr[-2000:]}"
        return done.stdout

    def nodes(self) -> dict[str, dict[str, Any]]:
        """Return CPUs and labels of the nodes that Ray's head lists, by host name."""
        output = self.run(self.head, f"python -c '{ALIVE}'").splitlines()[-1]
        return {name: {"cpus": int(cpus), "labels": labels} for name, cpus, labels in yaml.safe_load(output)}

    def wait_for_nodes(self) -> None:
        """Wait until all hosts have joined the cluster."""
        wait_until(lambda: set(self.nodes()) == set(NAMES), "all nodes", 150, every_s=2)

    def start_study(self, name: str, flags: str) -> Study:
        """Start a study on the head."""
        command = (
            "cd ~/las_tune && python -m las_tune "
            f"--data-root {SHARED}/data --textures {SHARED}/textures {SMALL} "
            f"--study {name} --results results/{name} --cpus-per-trial {self.cpus} {flags}"
        )
        log = self.laptop / f"{name}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(self.hosts.ssh(self.head, command), stdin=subprocess.DEVNULL, stdout=file,
                                       stderr=subprocess.STDOUT)  # fmt: skip
        return Study(name, self.head.home / "las_tune/results" / name / name, log, process)

    @property
    def mlflow_database(self) -> str:
        """The database of the head's MLflow, for direct access."""
        return f"sqlite:///{self.head.home}/mlflow/mlflow.db"


@dataclass
class Study:
    """A study that runs on the head."""

    name: str
    folder: Path
    log: Path
    process: subprocess.Popen[bytes]

    def wait_for_trial_on(self, host: Host, hosts: Hosts) -> int:
        """Wait until a trial or finalist on a host has trained some but not most epochs; return its number."""
        found: list[int] = []

        def is_there() -> bool:
            assert self.process.poll() is None, self.output()
            numbers, epochs = self._numbers(), self.num_epochs()
            here = [numbers[name] for name in folders_on(host, hosts) if name in numbers]
            found.extend(number for number in here[-1:] if 1 <= epochs.get(number, 0) <= EPOCHS - 3)
            return bool(found)

        wait_until(is_there, lambda: f"a trial on {host.name}: {self.output()}", 200, every_s=0.1)
        return found[0]

    def has_trained(self, number: int, host: Host, hosts: Hosts) -> bool:
        """Return whether a trial ran on a host."""
        return any(self._numbers().get(name) == number for name in folders_on(host, hosts))

    def num_epochs(self) -> dict[int, int]:
        """Return the number of epochs of each running trial, by trial number."""
        epochs: dict[int, int] = {}
        for line in self._lines("ledger.jsonl")[1:]:
            if line["run"].isdigit():
                number = int(line["run"])
                epochs[number] = epochs.get(number, 0) + bool(line.get("metrics"))
                if line.get("end"):
                    del epochs[number]
        return epochs

    def _numbers(self) -> dict[str, int]:
        """Return the trial numbers by folder name."""
        started = [line["trial"] for line in self._lines("trials.jsonl") if line["event"] == "started"]
        return {Path(trial["folder"]).name: trial["number"] for trial in started}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """Return the complete lines of a file that is being written."""
        file = self.folder / name
        text = file.read_text() if file.is_file() else ""
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def failures(self, hosts: Hosts) -> dict[int, int]:
        """Return the number of failures of each trial that failed, by Ray Tune's experiment state."""
        failures = {}
        for file in (hosts.shared / "storage" / self.name).glob("ray*/experiment_state-*.json"):
            for trial, notes in json.loads(file.read_text())["trial_data"]:
                name = f"{'finalist' if 'finalists' in file.parent.name else 'trial'}_{json.loads(trial)['trial_id']}"
                failures[self._numbers()[name]] = json.loads(notes)["num_failures"]
        return {number: times for number, times in failures.items() if times}

    def finish(self) -> dict[str, Any]:
        """Wait for the end of the study and return its summary."""
        assert self.process.wait(300) == 0, self.output()
        summary: dict[str, Any] = json.loads((self.folder / "summary.json").read_text())
        return summary

    def output(self) -> str:
        """Return the end of the study's output."""
        return self.log.read_text(errors="replace")[-3000:]


@dataclass(frozen=True)
class Ledger:
    """The runs of a study in MLflow."""

    client: MlflowClient
    study: Run
    trials: dict[int, Run]

    @classmethod
    def read(cls, uri: str, study: str) -> Ledger:
        client = MlflowClient(uri)
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(experiments, f"tags.study = '{study}'")
        (parent,) = [run for run in runs if run.data.tags["kind"] == "study"]
        trials = [run for run in runs if run.data.tags["kind"] == "trial"]
        by_number = {int(run.data.tags["trial"]): run for run in trials}
        assert len(by_number) == len(trials)
        return cls(client, parent, by_number)

    def history(self, number: int, metric: str) -> list[tuple[int, float]]:
        """Return (epoch, value) of every write, repeated ones included."""
        measured = self.client.get_metric_history(self.trials[number].info.run_id, metric)
        return [
            (write.step, write.value) for write in sorted(measured, key=lambda write: (write.step, write.timestamp))
        ]

    def workers(self) -> set[str]:
        """Return the hosts on which trials ended."""
        return {run.data.tags["worker"].partition(":")[0] for run in self.trials.values()}

    def check(self, trials: int, epochs: int) -> None:
        """Check that each trial and each epoch is logged once, and that all runs finished."""
        assert sorted(self.trials) == [*range(trials), *range(MAX_TRIALS, MAX_TRIALS + FINALISTS)]
        assert self.study.info.status == "FINISHED"
        for number, run in self.trials.items():
            assert (run.info.status, run.data.tags["status"]) == ("FINISHED", "completed")
            for metric in ("objective", "loss"):
                assert [epoch for epoch, _ in self.history(number, metric)] == list(range(1, epochs + 1)), number

    def repeated(self, cpus: int) -> dict[int, float]:
        """Return the time of repeated epochs, in units of the longest epoch, by trial number."""
        longest = {number: max(value for _, value in self.history(number, "seconds")) for number in self.trials}
        return {n: run.data.metrics["cost/lost_cpu_seconds"] / cpus / longest[n] for n, run in self.trials.items()}


def folders_on(host: Host, hosts: Hosts) -> list[str]:
    """Return the names of the trials' working folders on a host, the latest last."""
    found = hosts.path(host, "/tmp/ray").glob("session_2*/artifacts/*/*/working_dirs/*")
    return [folder.name for folder in sorted(found, key=lambda folder: folder.stat().st_mtime)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that was started with `ray up`."""
    folder = tmp_path_factory.mktemp("cluster")
    with Hosts(folder, NAMES) as hosts:
        for category in ("part", "another"):  # the second has no champion before the last test
            make_part(hosts.shared / "data", category, train=16, good=6, rust=6)
        make_textures(hosts.shared / "textures")
        cluster = Cluster(hosts, folder / "laptop")
        (cluster.laptop / "tmp").mkdir(parents=True)
        copy_checkout(cluster.checkout)
        edit(cluster.checkout / FILE, hosts)
        cluster.ray("get-auth-token", "--generate")
        cluster.up = cluster.ray("up", "-y", FILE)
        cluster.wait_for_nodes()
        cluster.cpus = min(node["cpus"] for node in cluster.nodes().values())
        yield cluster


def copy_checkout(to: Path) -> None:
    """Copy the parts of this checkout that the cluster file mounts."""
    to.mkdir()
    for name in yaml.safe_load((ROOT / FILE).read_text())["file_mounts"].values():
        if not name.startswith("~"):
            part = ROOT / name
            if part.is_dir():
                shutil.copytree(part, to / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(part, to / name)


def edit(file: Path, hosts: Hosts) -> None:
    """Replace addresses, user and key in the lines marked EDIT."""
    addresses = [host.address for host in hosts.hosts]
    given = {
        "192.0.2.10": addresses[0], "[192.0.2.11, 192.0.2.12]": f"[{', '.join(addresses[1:])}]",
        "ssh_user: ubuntu": f"ssh_user: {USER}", "~/.ssh/id_ed25519": str(hosts.key),
    }  # fmt: skip
    text = file.read_text()
    for usual, own in given.items():
        assert text.count(usual) == 1
        text = text.replace(usual, own)
    file.write_text(text)


def test_all_hosts_join_with_the_same_versions(cluster: Cluster) -> None:
    assert "All versions match" in cluster.up
    nodes = cluster.nodes()
    digests = {name: node["labels"]["las_tune.las_tune"] for name, node in nodes.items()}
    assert set(digests) == set(NAMES) and len(set(digests.values())) == 1
    assert (cluster.head.home / ".ray/auth_token").stat().st_mode & 0o077 == 0


def test_dashboard_and_mlflow_listen_on_the_head_only(cluster: Cluster) -> None:
    for port in (8265, 5000):
        cluster.run(cluster.head, f"</dev/tcp/127.0.0.1/{port}")
        assert cluster.hosts.run(cluster.workers[0], f"</dev/tcp/{cluster.head.address}/{port}").returncode
    cluster.run(cluster.workers[0], f"</dev/tcp/{cluster.head.address}/6379")  # the connection itself works


def test_cluster_rejects_requests_without_the_token(cluster: Cluster) -> None:
    ask = f"ray status --address {cluster.head.address}:6379"
    cluster.run(cluster.workers[0], ask)
    for otherwise in ("RAY_AUTH_MODE=disabled", "HOME=/nowhere", f"RAY_AUTH_TOKEN={'ab' * 32}"):
        reply = cluster.hosts.run(cluster.workers[0], f"{otherwise} {ask}")
        assert reply.returncode, otherwise
        assert "token" in reply.stdout + reply.stderr, otherwise
        assert "Node status" not in reply.stdout, otherwise


def test_host_with_another_version_is_rejected(cluster: Cluster) -> None:
    host, other = cluster.workers[1], "export PYTHONPATH=$HOME/other; cd ~/other"
    cluster.run(host, "cp -r ~/las_tune ~/other && echo '# changed' >> ~/other/las_tune/errors.py")
    check = cluster.hosts.run(host, f"{other}; python -m las_tune node check --head {cluster.head.address}:6379")
    assert (check.returncode, check.stdout, check.stderr.count("\n")) == (2, "", 1), check
    assert "las_tune" in check.stderr and "head" in check.stderr
    before = cluster.hosts.processes(host)
    start = yaml.safe_load((cluster.checkout / FILE).read_text())["worker_start_ray_commands"][-1]
    start = start.replace("PYTHONPATH=$HOME/las_tune", "PYTHONPATH=$HOME/other")
    started = cluster.hosts.run(host, f"cd ~/other; export RAY_HEAD_IP={cluster.head.address}; {start}")
    assert started.returncode and started.stderr == check.stderr
    assert cluster.hosts.processes(host).keys() <= before.keys()


def test_study_survives_lost_hosts_and_a_killed_mlflow(cluster: Cluster) -> None:
    flags = f"{EVERYWHERE} --category part --trials {TRIALS} --epochs {EPOCHS}"
    study = cluster.start_study("struck", flags)
    lost, disconnected = cluster.workers
    killed = study.wait_for_trial_on(lost, cluster.hosts)
    for host in cluster.hosts.hosts:  # a trial takes all CPUs of a host, so every host runs one
        assert any("ImplicitFunc" in line for line in cluster.hosts.processes(host).values()), host.name
    before = study.num_epochs()[killed]
    environment = lost.home / "las_tune_env"
    environment.rename(lost.home / "away")  # keeps the cluster from restarting the host immediately
    assert cluster.hosts.kill_ray(lost)
    wait_until(lambda: study.num_epochs().get(killed, EPOCHS) > before + 1, f"progress of trial {killed}", 200, 0.5)
    (lost.home / "away").rename(environment)
    assert any(study.has_trained(killed, host, cluster.hosts) for host in (cluster.head, disconnected))

    cut = study.wait_for_trial_on(disconnected, cluster.hosts)
    cluster.hosts.cut(disconnected)
    ends = time.monotonic() + 60
    assert "200" in cluster.hosts.run(cluster.head, HEALTH).stdout
    assert len(cluster.hosts.kill_host_processes(cluster.head, "mlflow server|uvicorn")) == 2
    assert cluster.hosts.run(cluster.head, HEALTH).returncode
    wait_until(lambda: "200" in cluster.hosts.run(cluster.head, HEALTH).stdout, "MLflow answers again", 90, 0.5)
    time.sleep(max(0.0, ends - time.monotonic()))
    cluster.hosts.join(disconnected)

    summary = study.finish()
    assert summary["trials"] == {"total": TRIALS, "completed": TRIALS, "pruned": 0, "failed": 0}
    ledger = Ledger.read(cluster.mlflow_database, "struck")
    ledger.check(TRIALS, EPOCHS)
    failures = study.failures(cluster.hosts)
    hits = Counter([killed, cut])  # the trial of the lost host may have moved to the host that is disconnected later
    assert failures[killed] >= 1 and Counter(failures) <= hits, (failures, hits)
    repeated = ledger.repeated(cluster.cpus)
    assert Counter({number: times for number, times in repeated.items() if times}) <= hits, (repeated, hits)
    cluster.wait_for_nodes()  # both hosts have rejoined automatically


def test_ray_up_restores_a_cluster_after_its_head_died(cluster: Cluster) -> None:
    assert cluster.hosts.kill_host_processes(cluster.head, "ray|mlflow")
    cluster.ray("up", "-y", FILE)
    cluster.wait_for_nodes()
    assert "200" in cluster.hosts.run(cluster.head, HEALTH).stdout


def test_one_host_and_three_give_equal_results_and_ray_down_is_clean(cluster: Cluster) -> None:
    flags = "--category another --trials 2 --epochs 2 --max-concurrent 1 --seed 5"
    three = cluster.start_study("three", f"{EVERYWHERE} {flags}").finish()
    of_three = Ledger.read(cluster.mlflow_database, "three")

    ends = time.monotonic() + 120
    cluster.ray("down", "-y", FILE)
    assert not cluster.hosts.processes(cluster.head)
    study = cluster.start_study("one", flags)  # no Ray runs on the head, so the study starts its own
    single = study.finish()
    of_single = Ledger.read(f"sqlite:///{study.folder.parent}/mlflow.db", "one")
    assert of_single.workers() == {"las-head"}
    assert numbers(of_single) == numbers(of_three)
    assert comparable(single) == comparable(three)

    def is_empty() -> bool:
        return not any(cluster.hosts.processes(host) for host in cluster.hosts.hosts)

    wait_until(is_empty, "the end of Ray on the workers without a head", ends - time.monotonic(), 0.5)


def numbers(ledger: Ledger) -> dict[int, Any]:
    """Return the parameters and metrics of trials that a repetition must reproduce."""
    metrics = ("objective", "loss", "image_auroc", "pixel_aupro")
    return {
        number: (run.data.params, [ledger.history(number, metric) for metric in metrics])
        for number, run in sorted(ledger.trials.items())
    }


def comparable(value: Any) -> Any:
    """Return a summary without names, paths and times."""
    other = {
        "study",
        "tracking_uri",
        "experiment_id",
        "parent_run_id",
        "seconds",
        "peak_memory_mb",
        "model_uri",
        "ledger",
    }
    if isinstance(value, dict):
        return {name: comparable(entry) for name, entry in value.items() if name not in other and "second" not in name}
    return [comparable(entry) for entry in value] if isinstance(value, list) else value
