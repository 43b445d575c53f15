"""The commands and examples of the README, and the links of every page."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from PIL import Image

from las_tune.cli.app import app
from tests.data.conftest import save_image
from tests.parts import make_part
from tests.waiting import wait_for_response

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
TUNE = "python -m las_tune --category metal_plate --backbone efficientnet_lite0 --trials 6 --epochs 5"
SERVE = (
    "MLFLOW_TRACKING_URI=sqlite:///results/las/mlflow.db mlflow models serve -m models:/las-metal_plate@champion "
    "--env-manager local -p 5001"
)
CURL = (
    """curl -H 'Content-Type: application/json' -d '{"inputs": ["'$(base64 -w0 a.png)'"]}' localhost:5001/invocations"""
)
UI = "python -m las_tune ui --study STUDY"
COMMANDS_AFTER_TUNE = (
    "python -m las_tune --resume --study STUDY",
    "python -m las_tune doctor --study STUDY --fix",
    "python -m las_tune compare STUDY STUDY",
    "python -m las_tune report STUDY",
    "python -m las_tune predict --model models:/las-metal_plate@champion IMAGES --out DIR",
    "python -m las_tune export --model models:/las-metal_plate@champion --format onnx",
    "python -m las_tune data init parts/bolt --good 'camera/*.png'",
    "python -m las_tune --extend 4 --study STUDY",
)
"""Commands that are run unchanged, in this order, after TUNE was stopped by Ctrl-C."""
TESTED_ELSEWHERE = {
    "pip install -e '.[demo]'": ".ci/run",
    "pip install -e '.[test]' && pytest": ".ci/run",
    "python -m las_tune --category bracket_black --demo": "tests/study/test_run.py, with fewer trials",
    "python -m las_tune data fetch mpdd": "tests/data/test_download.py, from a local server",
    "python -m las_tune data fetch dtd": "tests/data/test_download.py, from a local server",
    "python -m las_tune --category metal_plate": "takes hours; TUNE is smaller",
    "python -m las_tune --category metal_plate --dry-run --price-per-gpu-hour 2.5": "tests/execution/test_plan.py",
    "python -m las_tune --category metal_plate --backbone efficientnet_lite0 --trials 32 --epochs 20": "see TUNE",
    "ray up cluster/aws.yaml": "tests/cluster/test_aws.py, with moto; onprem.yaml: test_onprem.py, on hosts",
    "ray exec cluster/aws.yaml 'python -m las_tune submit --category metal_plate --data-root DIR --textures DIR "
    "--storage s3://BUCKET/las'": "tests/cluster/test_onprem.py, test_jobs.py",
    "ray attach cluster/aws.yaml -p 8265 -p 5000": "an interactive shell; status, logs, stop, list: test_jobs.py",
    "python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run": (
        "tests/execution/test_plan.py"
    ),
}
"""Commands that are not run here, with the test that covers them."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Return the shell commands of the README without their comments."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(re.sub(r"\s#\s.*", "", line).split()) for line in lines if line.strip()]


def test_every_command_is_tested() -> None:
    known = {TUNE, SERVE, CURL, UI, *COMMANDS_AFTER_TUNE, *TESTED_ELSEWHERE}
    assert set(commands()) == known


def test_readme_has_no_placeholders() -> None:
    assert "@@" not in README


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("python -m las_tune") and "..." not in c])
def test_every_flag_is_known(command: str) -> None:
    words = shlex.split(command)[3:]
    for flags in (["--resume"], ["--extend", "4"]):  # the category is that of the study
        if words[: len(flags)] == flags:
            words = ["--category", "metal_plate", *words]
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_package_map_names_every_module() -> None:
    package = ROOT / "las_tune"
    package_map = (package / "README.md").read_text(encoding="utf-8")
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        start = "las_tune/\n" if folder == package else f"  {folder.name}/"
        section = package_map[package_map.index(start) :].split("\n\n")[0]
        names = {path.name for path in folder.glob("*.py") if not path.name.startswith("__init__")}
        assert {name for name in names if name not in section} == set(), folder.name


@pytest.mark.parametrize("page", [path for path in ROOT.rglob("README.md") if not {".venv", "build"} & set(path.parts)])
def test_links_of_every_page_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)h#][^)#]*)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def run(workspace: Path, command: str, timeout_s: int = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=workspace,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a working directory with data, and a study that was stopped by Ctrl-C."""
    folder = tmp_path_factory.mktemp("user")
    make_part(folder / "data/anomaly_dataset", "metal_plate", train=10)
    for index in range(3):
        save_image(folder / "data/dtd" / "woven" / f"{index}.png", size=(64, 64))
    for index in range(60):
        save_image(folder / "camera" / f"{index}.png")
    for index in range(24):
        save_image(folder / "IMAGES" / f"{index}.png")
    (folder / "returned").mkdir()
    for index in range(24):
        with Image.open(folder / "IMAGES" / f"{index}.png") as image:
            image.save(folder / "returned" / f"{index}.jpg")
    save_image(folder / "a.png")
    command = ["python", *shlex.split(TUNE)[1:], "--study", "STUDY"]
    with subprocess.Popen(
        command, cwd=folder, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as study:
        assert study.stdout is not None and study.stderr is not None
        for line in study.stdout:
            if line.startswith("trial"):
                study.send_signal(signal.SIGINT)
                break
        study.stdout.read()
        assert study.wait(120) == 130, study.stderr.read()
    return folder


@pytest.fixture(scope="module")
def used_workspace(workspace: Path) -> Path:
    """Return the same working directory after COMMANDS_AFTER_TUNE."""
    for command in COMMANDS_AFTER_TUNE:
        completed = run(workspace, command)
        assert completed.returncode == 0, f"{command}\n{completed.stdout[-2000:]}\n{completed.stderr[-2000:]}"
    return workspace


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_succeed_in_order(used_workspace: Path) -> None:
    summary = json.loads((used_workspace / "results/las/STUDY/summary.json").read_text())
    assert summary["trials"]["total"] == 6 + 4
    assert (used_workspace / "las-metal_plate.onnx").is_file()
    assert (used_workspace / "DIR/predictions.csv").is_file()
    assert (used_workspace / "parts/bolt/train/good").is_dir()
    assert list(used_workspace.glob("*.html"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ui_and_served_model_respond(used_workspace: Path) -> None:
    for command, address in ((UI, None), (SERVE, "http://127.0.0.1:5001/ping")):
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if command is UI else f"env {command}"],
            cwd=used_workspace, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            process_group=0,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            if address is None:
                address = next(line for line in server.stdout if "http://127.0.0.1" in line).strip().split()[-1]
            wait_for_response(address.partition("#")[0], process=server)
            if command is SERVE:
                response = json.loads(run(used_workspace, CURL).stdout)
                assert 0 <= response["predictions"][0]["score"] <= 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


SMALL_DEMO = """
from las_tune.config.demo_settings import DEMO_DEFAULTS
DEMO_DEFAULTS.update(trials=2, epochs=1, image_size=64, seeds=2)
"""


@pytest.mark.slow
def test_library_examples_run(tmp_path: Path) -> None:
    examples = [block for block in blocks("python") if "from las_tune import" in block]
    assert len(examples) == 3
    (tmp_path / "examples.py").write_text(SMALL_DEMO + "\n".join(examples))
    completed = run(tmp_path, "python examples.py")
    assert completed.returncode == 0, completed.stdout[-2000:] + completed.stderr[-2000:]
    assert "(64, 64)" in completed.stdout and "objective" in completed.stdout
