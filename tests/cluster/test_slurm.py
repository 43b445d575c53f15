"""cluster/slurm.sbatch, run with fakes of Slurm's commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import wait_until

SCRIPT = Path(__file__).parents[2] / "cluster/slurm.sbatch"


def make_fake_commands(folder: Path) -> Path:
    """Create fakes: `srun` runs the command once, locally; `ray` and `python -m las_tune` record their arguments."""
    programs = folder / "bin"
    programs.mkdir()
    scripts = {
        "scontrol": 'if [ "$1" = show ]; then printf "node-a\\nnode-b\\n"; else echo "$@" >> $LOG/scontrol; fi',
        "hostname": "echo 192.0.2.41 198.51.100.1",
        "srun": 'while [ "${1#--}" != "$1" ]; do echo "$1" >> $LOG/options; shift; done; exec "$@"',
        "ray": 'printf "%s\\n" "$@" > $LOG/ray; env > $LOG/environment; stat -c %a $RAY_AUTH_TOKEN_PATH > $LOG/mode\n'
        'head -c 64 $RAY_AUTH_TOKEN_PATH > $LOG/token; [ -e $LOG/long ] && sleep 30; exit ${STUDY_STATUS:-0}',
        "python": f'[ "$2" = las_tune ] && echo "$@" >> $LOG/python && exit 0; exec {sys.executable} "$@"',
    }  # fmt: skip
    for name, lines in scripts.items():
        (programs / name).write_text(f"#!/bin/bash\n{lines}\n", encoding="utf-8")
        (programs / name).chmod(0o755)
    return programs


def slurm_job(folder: Path, *arguments: str, **changes: str) -> subprocess.Popen[bytes]:
    """Start the script as on the first of two nodes."""
    programs = folder / "bin" if (folder / "bin").exists() else make_fake_commands(folder)
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}", "LOG": str(folder), "SLURM_SUBMIT_DIR": str(folder / "checkout"),
        "SLURM_JOB_ID": "412345", "SLURM_JOB_NODELIST": "node-[a-b]", "SLURM_NNODES": "2", "SLURM_CPUS_PER_TASK": "8",
    }  # fmt: skip
    return subprocess.Popen(["bash", SCRIPT, *arguments], env=environment | changes)


def test_slurm_job_starts_ray_on_every_node_and_the_study_on_one(tmp_path: Path) -> None:
    assert slurm_job(tmp_path, "--category", "metal plate").wait(60) == 0
    assert (tmp_path / "ray").read_text(encoding="utf-8").splitlines() == [
        "symmetric-run", "--address", "192.0.2.41:22345", "--min-nodes", "2", "--num-cpus", "8", "--",
        "python", "-m", "las_tune", "--address", "auto", "--study", "slurm-412345",
        "--results", f"{tmp_path}/checkout/results/slurm",
        "--storage", f"{tmp_path}/checkout/results/slurm/checkpoints", "--category", "metal plate",
    ]  # fmt: skip
    assert (tmp_path / "python").read_text(encoding="utf-8") == "-m las_tune node check\n"
    options = (tmp_path / "options").read_text(encoding="utf-8").splitlines()
    assert "--nodelist=node-a" in options and options[-4:] == [
        "--nodes=2", "--ntasks=2", "--ntasks-per-node=1", "--cpus-per-task=8",
    ]  # fmt: skip


def test_slurm_job_creates_its_own_token(tmp_path: Path) -> None:
    tokens = set()
    for _ in range(2):
        assert slurm_job(tmp_path).wait(60) == 0
        assert (tmp_path / "mode").read_text(encoding="utf-8") == "600\n"
        tokens.add((tmp_path / "token").read_text(encoding="utf-8"))
        environment = (tmp_path / "environment").read_text(encoding="utf-8")
        assert "\nRAY_AUTH_MODE=token\n" in environment and f"\nPYTHONPATH={tmp_path}/checkout\n" in environment
        assert not any(token in environment for token in tokens)
        (path,) = re.findall(r"(?m)^RAY_AUTH_TOKEN_PATH=(.+)$", environment)
        assert not Path(path).exists() and stat.S_IMODE(Path(path).parent.stat().st_mode) == 0o700
    assert len(tokens) == 2 and all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)


def test_slurm_job_returns_the_status_of_a_named_study(tmp_path: Path) -> None:
    changes = {"STUDY_STATUS": "3", "LAS_TUNE_STUDY": "night", "LAS_TUNE_SHARED": str(tmp_path / "shared")}
    assert slurm_job(tmp_path, **changes).wait(60) == 3
    arguments = (tmp_path / "ray").read_text(encoding="utf-8")
    assert "--study\nnight\n" in arguments and f"--storage\n{tmp_path}/shared/checkpoints\n" in arguments


def test_slurm_job_at_its_time_limit_is_requeued(tmp_path: Path) -> None:
    (tmp_path / "long").touch()
    job = slurm_job(tmp_path)
    wait_until((tmp_path / "token").exists, "the job's start", 30)
    job.send_signal(signal.SIGUSR1)  # --signal=B:USR1@120
    assert job.wait(30) != 0
    assert (tmp_path / "scontrol").read_text(encoding="utf-8") == "requeue 412345\n"


def test_slurm_options_precede_the_first_command() -> None:
    """Slurm reads #SBATCH lines up to the first command only."""
    lines = SCRIPT.read_text(encoding="utf-8").splitlines()
    first = next(number for number, line in enumerate(lines) if line and not line.startswith("#"))
    options = [line.split()[1].partition("=")[0] for line in lines if line.startswith("#SBATCH")]
    assert options == [line.split()[1].partition("=")[0] for line in lines[:first] if line.startswith("#SBATCH")]
    assert {"--requeue", "--exclusive", "--gres", "--nodes", "--ntasks-per-node", "--signal"} <= set(options)


@pytest.mark.cluster
@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="a pid namespace needs root and unshare")
@pytest.mark.slow
def test_slurm_job_runs_a_real_study(tmp_path: Path) -> None:
    """One node, in a pid namespace, because `ray symmetric-run` ends with `ray stop`, which stops every visible Ray."""
    programs = make_fake_commands(tmp_path)
    for name in ("ray", "python", "hostname"):
        (programs / name).unlink()
    job_id = str(os.getpid())
    study = "--category bracket_black --demo --image-size 64 --trials 2 --epochs 1 --finalists 1 --seeds 2"
    environment = os.environ | {
        "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}", "LOG": str(tmp_path),
        "SLURM_SUBMIT_DIR": str(SCRIPT.parents[1]), "SLURM_JOB_ID": job_id, "SLURM_JOB_NODELIST": "node-a",
        "SLURM_NNODES": "1", "SLURM_CPUS_PER_TASK": "2", "LAS_TUNE_SHARED": str(tmp_path / "shared"),
    }  # fmt: skip
    script = f"mount -t proc proc /proc && bash {SCRIPT} {study}"
    done = subprocess.run(
        ["unshare", "--pid", "--mount", "--fork", "--kill-child", "bash", "-c", script],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=550, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "2 (2 completed, 0 pruned, 0 failed)" in done.stdout
    assert list((tmp_path / f"shared/checkpoints/slurm-{job_id}/ray").glob("trial_*/checkpoint_*"))
    assert not Path(f"/tmp/las_tune-{job_id}").exists()
