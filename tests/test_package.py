"""The built distributions run outside the checkout and contain the search spaces and cluster files."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.parts import SMALL, make_part, make_textures

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sdist and the wheel that was built from it."""
    checkout = tmp_path_factory.mktemp("checkout") / "las_tune"
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in files:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, checkout / name)
    out = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(checkout)], out)
    return out


def run(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command, cwd=folder, env=os.environ | environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_wheel_contains_all_package_data(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    spaces = {f"las_tune/search_spaces/{path.name}" for path in (ROOT / "search_spaces").glob("*.toml")}
    cluster = {f"las_tune/cluster_files/{path.name}" for path in (ROOT / "cluster").iterdir() if path.is_file()}
    package_data = {"las_tune/py.typed", "las_tune/CHANGELOG.md", "las_tune/tracking/report.html"}
    package_data |= {f"las_tune/{path.parent.name}/__init__.pyi" for path in (ROOT / "las_tune").glob("*/__init__.pyi")}
    assert spaces | cluster | package_data <= names
    assert not [name for name in names if name.startswith(("tests/", "search_spaces/", "cluster/"))]
    assert any(name.endswith("share/las_tune/constraints.txt") for name in names)


def test_sdist_contains_the_files_of_a_checkout(built: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "constraints.txt"} <= names
    assert {"cluster/aws.yaml", "cluster/mlflow.sh", "search_spaces/core.toml", "las_tune/cli/app.py"} <= names


def test_installed_wheel_runs_without_a_checkout(built: Path, tmp_path: Path) -> None:
    (wheel,) = built.glob("*.whl")
    installed = tmp_path / "installed"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(installed)]
    run([*pip, str(wheel)], tmp_path)
    make_part(tmp_path / "d")
    make_textures(tmp_path / "t")

    def python(*arguments: str) -> str:
        return run([sys.executable, *arguments], tmp_path, PYTHONPATH=str(installed))

    assert python("-c", "import las_tune; print(las_tune.__file__)").startswith(str(installed))
    assert "las_tune" in python("-m", "las_tune", "--help")
    flags = f"--category part --data-root d --textures t {SMALL} --study s --space metal_plate --trials 2".split()
    assert "model:" in python("-m", "las_tune", *flags, "--finalists", "1", "--seeds", "2")
