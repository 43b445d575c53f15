"""What the README tells a user to type does what it says."""

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
IN_ORDER = (
    "python -m las_tune --resume --study STUDY",
    "python -m las_tune doctor --study STUDY --fix",
    "python -m las_tune compare STUDY STUDY",
    "python -m las_tune report STUDY",
    "python -m las_tune predict --model models:/las-metal_plate@champion IMAGES --out DIR",
    "python -m las_tune export --model models:/las-metal_plate@champion --format onnx",
    "python -m las_tune data init parts/bolt --good 'camera/*.png'",
    "python -m las_tune --extend 4 --study STUDY",
)
"""Run as they stand, after TUNE was cut off by Ctrl-C."""
ELSEWHERE = {
    "pip install -e '.[demo]'": ".ci/run installs so",
    "pip install -e '.[test]' && pytest": ".ci/run",
    "python -m las_tune --category bracket_black --demo": "tests/study/test_run.py, smaller",
    "python -m las_tune data fetch mpdd": "tests/data/test_download.py, from a server of its own",
    "python -m las_tune data fetch dtd": "tests/data/test_download.py, from a server of its own",
    "python -m las_tune --category metal_plate": "hours; TUNE is the same, smaller",
    "python -m las_tune --category metal_plate --dry-run --price-per-gpu-hour 2.5": "tests/execution/test_plan.py",
    "python -m las_tune --category metal_plate --backbone efficientnet_lite0 --trials 32 --epochs 20": "TUNE, smaller",
    "ray up cluster/aws.yaml": "tests/cluster/test_aws.py, by moto; onprem.yaml by test_onprem.py on hosts",
    "ray exec cluster/aws.yaml 'python -m las_tune submit --category metal_plate --data-root DIR --textures DIR "
    "--storage s3://BUCKET/las'": "tests/cluster/test_onprem.py, test_jobs.py",
    "ray attach cluster/aws.yaml -p 8265 -p 5000": "a shell for people; status, logs, stop, list: test_jobs.py",
    "python -m las_tune --category bolt --data-root parts --validation synthetic --dry-run": (
        "tests/execution/test_plan.py"
    ),
}
"""What is not run here, and where it is."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def commands() -> list[str]:
    """Without what is said of them."""
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [" ".join(re.sub(r"\s#\s.*", "", line).split()) for line in lines if line.strip()]


def test_every_command_is_run_somewhere() -> None:
    known = {TUNE, SERVE, CURL, UI, *IN_ORDER, *ELSEWHERE}
    assert set(commands()) == known


def test_nothing_is_left_to_be_filled_in() -> None:
    assert "@@" not in README


@pytest.mark.parametrize("command", [c for c in commands() if c.startswith("python -m las_tune") and "..." not in c])
def test_every_flag_is_known(command: str) -> None:
    words = shlex.split(command)[3:]
    for left_out in (["--resume"], ["--extend", "4"]):  # these take the category from the study
        if words[: len(left_out)] == left_out:
            words = ["--category", "metal_plate", *words]
    app.parse_args(words, exit_on_error=False, print_error=False)


def test_the_map_names_every_module() -> None:
    package = ROOT / "las_tune"
    listed = (package / "README.md").read_text(encoding="utf-8")
    for folder in sorted({path.parent for path in package.rglob("*.py")}):
        start = "las_tune/\n" if folder == package else f"  {folder.name}/"
        section = listed[listed.index(start) :].split("\n\n")[0]
        names = {path.name for path in folder.glob("*.py") if not path.name.startswith("__init__")}
        assert {name for name in names if name not in section} == set(), folder.name


@pytest.mark.parametrize("page", [path for path in ROOT.rglob("README.md") if not {".venv", "build"} & set(path.parts)])
def test_links_of_every_page_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)h#][^)#]*)[^)]*\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def run(place: Path, command: str, timeout_s: int = 400) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", command],
        cwd=place,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def environment() -> dict[str, str]:
    return os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a user has data, and a study that was cut off by Ctrl-C."""
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
def day(place: Path) -> Path:
    """The same, after all commands that go on from there."""
    for command in IN_ORDER:
        done = run(place, command)
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return place


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_commands_in_the_order_of_a_users_day(day: Path) -> None:
    summary = json.loads((day / "results/las/STUDY/summary.json").read_text())
    assert summary["trials"]["total"] == 6 + 4
    assert (day / "las-metal_plate.onnx").is_file() and (day / "DIR/predictions.csv").is_file()
    assert (day / "parts/bolt/train/good").is_dir() and list(day.glob("*.html"))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_ui_and_the_served_model_answer(day: Path) -> None:
    for command, address in ((UI, None), (SERVE, "http://127.0.0.1:5001/ping")):
        server = subprocess.Popen(
            ["bash", "-c", f"exec {command}" if command is UI else f"env {command}"],
            cwd=day, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0,
        )  # fmt: skip
        try:
            assert server.stdout is not None
            if address is None:
                address = next(line for line in server.stdout if "http://127.0.0.1" in line).strip().split()[-1]
            wait_for_response(address.partition("#")[0], process=server)
            if command is SERVE:
                answer = json.loads(run(day, CURL).stdout)
                assert 0 <= answer["predictions"][0]["score"] <= 1
        finally:
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
            server.wait(30)


SMALLER = """
from las_tune.config.demo_settings import DEMO_DEFAULTS
DEMO_DEFAULTS.update(trials=2, epochs=1, image_size=64, seeds=2)
"""


@pytest.mark.slow
def test_the_librarys_examples(tmp_path: Path) -> None:
    examples = [block for block in blocks("python") if "from las_tune import" in block]
    assert len(examples) == 3
    (tmp_path / "examples.py").write_text(SMALLER + "\n".join(examples))
    done = run(tmp_path, "python examples.py")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "(64, 64)" in done.stdout and "objective" in done.stdout
