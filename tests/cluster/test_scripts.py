"""Lint the commands of the cluster files, and check that the files are consistent."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "cluster"
PROGRAMS = Path(sys.executable).parent
"""Folder in which pip installs programs."""
FILES = ["aws.yaml", "gcp.yaml", "onprem.yaml"]
CLOUDS = ["aws.yaml", "gcp.yaml"]


def loaded(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((CLUSTER / name).read_text(encoding="utf-8")))


@pytest.mark.parametrize("name", ["slurm.sbatch", "mlflow.sh"])
def test_shellcheck_passes(name: str) -> None:
    done = subprocess.run([PROGRAMS / "shellcheck", CLUSTER / name], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_hadolint_passes() -> None:
    done = subprocess.run([PROGRAMS / "hadolint", CLUSTER / "Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_shellcheck_passes_for_commands_in_cluster_files() -> None:
    """The commands are YAML values, which linters do not check."""
    commands = [
        command
        for name in CLOUDS
        for key, value in loaded(name).items()
        if key.endswith("commands")
        for command in value
    ]
    assert len(commands) > 12
    given = {"input": "\n".join(commands), "capture_output": True, "text": True, "check": False}
    # SC2016: variables in ~/.bashrc are expanded later. SC2086: RAY_HEAD_IP, set by Ray, needs no quotes.
    done = subprocess.run([PROGRAMS / "shellcheck", "-s", "bash", "-e", "SC2016,SC2086", "-"], **given)
    assert (done.returncode, done.stdout) == (0, "")


def test_every_start_of_ray_has_token_check_and_labels() -> None:
    for name in CLOUDS:
        for role in ("head", "worker"):
            commands = loaded(name)[f"{role}_start_ray_commands"]
            assert commands[0] == "ray stop"
            (start,) = [command for command in commands if "ray start" in command]
            assert start.startswith("export RAY_AUTH_MODE=token PYTHONPATH=$HOME/las_tune")
            assert re.search(r"python -m las_tune node check( --head \$RAY_HEAD_IP:6379)? && ray start", start)
            assert '--labels="$(python -m las_tune node labels)"' in start
            assert ("--dashboard-host=127.0.0.1" in start) == (role == "head")
            assert ("node check --head $RAY_HEAD_IP:6379" in start) == (role == "worker")


def test_token_and_checkout_are_mounted_on_every_node() -> None:
    for name in FILES:
        mounts = loaded(name)["file_mounts"]
        assert mounts.pop("~/.ray/auth_token") == "~/.ray/auth_token"
        assert any("chmod go= ~/.ray ~/.ray/auth_token" in command for command in loaded(name)["setup_commands"])
        assert {"~/las_tune/las_tune", "~/las_tune/search_spaces", "~/las_tune/cluster"} < set(mounts)
        for there, here in mounts.items():
            assert there == f"~/las_tune/{here}" and (ROOT / here).exists()
        # rsync_filter would apply data/ of .gitignore to las_tune/data, in spite of !las_tune/data/.
        assert "rsync_filter" not in loaded(name)


def test_cloud_files_start_mlflow_and_the_spot_watcher() -> None:
    for name, scheme, cloud in zip(CLOUDS, ("s3", "gs"), ("aws", "gcp"), strict=True):
        config = loaded(name)
        assert config["head_start_ray_commands"][-1] == (
            f"MLFLOW_ARTIFACTS={scheme}://las-tune-EDIT/mlflow bash ~/las_tune/cluster/mlflow.sh"
        )
        watch = config["worker_start_ray_commands"][-1]
        assert "RAY_AUTH_MODE=token" in watch and f"spot_watch.py {cloud} " in watch and watch.endswith("&")


def test_images_have_the_ray_version_of_constraints() -> None:
    (ray,) = re.findall(r"(?m)^ray==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"))
    for name in CLOUDS:
        docker = loaded(name)["docker"]
        assert docker["head_image"] == f"rayproject/ray:{ray}-py311"
        assert docker["worker_image"] == f"rayproject/ray:{ray}-py311-gpu"
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"(?m)^FROM (.+)$", text) == [f"rayproject/ray:{ray}-py311-gpu"]
    assert re.findall(r"(?m)^USER (.+)$", text) == ["1000:100"]
    assert f'rayVersion: "{ray}"' in (CLUSTER / "kuberay.yaml").read_text(encoding="utf-8")


def test_image_has_every_requirement_and_folder() -> None:
    text = (CLUSTER / "Dockerfile").read_text(encoding="utf-8")
    (program,) = re.findall(r'RUN python -c "(.+?)" > requirements.txt', text, re.DOTALL)
    printed = subprocess.run(
        [sys.executable, "-c", program.replace("\\\n", "").replace(r"'\n'", "chr(10)")],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    assert any(line.startswith("torch>=") for line in printed) and any(line.startswith("boto3") for line in printed)
    copied = {word for line in re.findall(r"(?m)^COPY --chown=1000:100 (.+)$", text) for word in line.split()[:-1]}
    assert copied == {
        "constraints.txt", "pyproject.toml", "README.md", "LICENSE", "las_tune", "search_spaces", "cluster",
    }  # fmt: skip


@cache
def known_flags() -> set[str]:
    """Return every flag of `tune`."""
    command = [sys.executable, "-m", "las_tune", "tune", "--help"]
    return set(re.findall(r"--[a-z-]+", subprocess.run(command, capture_output=True, text=True, check=True).stdout))


@pytest.mark.parametrize("name", [*FILES, "kuberay.yaml", "slurm.sbatch"])
def test_documented_commands_use_existing_flags(name: str) -> None:
    text = (CLUSTER / name).read_text(encoding="utf-8").replace("\\\n#", " ").replace("\\\n", " ")
    if name == "kuberay.yaml":
        text = next(each["spec"]["entrypoint"] for each in yaml.safe_load_all(text) if each["kind"] == "RayJob")
    studies = re.findall(r"(?m)(?:-m las_tune|slurm\.sbatch) (--.*)$", text)
    used = {flag for words in studies for flag in re.findall(r"--[a-z-]+", words)}
    assert {"--category", "--address", "--storage", "--data-root", "--textures"} <= used <= known_flags()
