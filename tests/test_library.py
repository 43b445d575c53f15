"""The library in a new process, together with MLflow code of the user, which it must not affect."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from las_tune import train, tune
from las_tune.api import load_champion
from las_tune.errors import UserError
from las_tune.reporting.run_summary import RunSummary
from tests.parts import make_part, make_textures
from tests.servers import free_port
from tests.summaries import make_summary
from tests.waiting import wait_for_response

USER = """
import json, mlflow
mlflow.set_tracking_uri("sqlite:///mine.db")
mlflow.set_experiment("mine")
mlflow.set_registry_uri("sqlite:///registry.db")
mlflow.autolog(silent=True)
import os, logging
before = dict(os.environ)

from las_tune import load_champion, train, tune
small = dict(data_root="d", textures="t", backbone="resnet18", backbone_weights="random", image_size=32)

with mlflow.start_run() as run:
    study = tune("part", study="s", trials=3, epochs=2, finalists=1, seeds=2, tensorboard=True, **small)
    trained = train("part", study="one", epochs=2, alpha=0.2, **small)
    champion = load_champion("part")
    predictions = list(champion.predict(["d/part/test/rust/000.png"]))
    mlflow.log_metric("mine", 1.0)

runs = mlflow.search_runs(search_all_experiments=True)
report = {
    "uri": mlflow.get_tracking_uri(), "registry": mlflow.get_registry_uri(), "runs": len(runs),
    "metrics": [c for c in runs.columns if c.startswith("metrics.")],
    "environment": before == {k: v for k, v in os.environ.items() if k in before or k.startswith("MLFLOW")},
    "level": logging.getLogger("mlflow").level, "active": mlflow.active_run() is None,
    "reason": study.reason, "promoted": study.is_promoted, "champion": study.champion, "model": study.model_uri,
    "scores": study.scores.to_dict("index"), "trials": json.loads(study.trials.to_json(orient="index")),
    "figures": [file.name for file in study.figures], "html": study._repr_html_(), "repr": repr(study),
    "trained": trained.scores.to_dict("index"), "epochs": list(trained.epochs.index),
    "trained_html": trained._repr_html_(),
    "trained_score": next(trained.predictor().predict(["d/part/test/rust/000.png"])).score,
    "score": predictions[0].score, "png": predictions[0]._repr_png_()[:4].hex(),
}
json.dump(report, open("report.json", "w"))
"""


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    make_part(folder / "d", train=8)
    make_textures(folder / "t")
    (folder / "work.py").write_text(USER)
    done = subprocess.run([sys.executable, "work.py"], cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return folder


@pytest.fixture(scope="module")
def report(workspace: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((workspace / "report.json").read_text())
    return loaded


@pytest.mark.slow
def test_mlflow_state_of_the_user_is_preserved(report: dict[str, Any]) -> None:
    assert report["registry"] == "sqlite:///registry.db"
    assert report["uri"] == "sqlite:///mine.db" and report["environment"] and report["active"]
    assert report["runs"] == 1 and report["metrics"] == ["metrics.mine"]
    assert report["level"] != 30  # WARNING, which a study sets


@pytest.mark.slow
def test_study_result_has_tables_and_figures(report: dict[str, Any], workspace: Path) -> None:
    summary = json.loads((workspace / "results/las/s/summary.json").read_text())
    assert report["reason"] == summary["promotion"]["reason"] and report["model"] == "models:/las-part@champion"
    assert report["champion"] == summary["champion"]["params"]
    assert report["scores"]["sealed test image_auroc"]["baseline"] == summary["test_mean"]["baseline"]["image_auroc"]
    assert report["trials"]["0"]["status"] == "completed" and len(report["trials"]) == 3 + 4
    assert {"roc_curve_part.png", "training_curves_part.png", "optimization_history.png"} <= {*report["figures"]}
    assert "<table" in report["html"] and report["html"].count("data:image/png") == 4
    assert len(report["repr"]) < 200


@pytest.mark.slow
def test_training_result_has_tables_and_figures(report: dict[str, Any]) -> None:
    assert report["epochs"] == [1, 2] and "sealed test image_auroc" in report["trained"]
    assert "data:image/png" in report["trained_html"] and 0 <= report["trained_score"] <= 1


@pytest.mark.slow
def test_champion_classifies_images(report: dict[str, Any]) -> None:
    assert 0 <= report["score"] <= 1 and report["png"] == b"\x89PNG".hex()


@pytest.mark.slow
def test_tensorboard_has_one_folder_per_training(workspace: Path) -> None:
    folders = {path.name for path in (workspace / "results/las/s/tensorboard").iterdir()}
    assert "trial_0_(baseline)" in folders and len(folders) == 3 + 4
    assert sum("baseline_seed" in name for name in folders) == 2


@pytest.mark.slow
def test_optuna_dashboard_opens_the_journal(workspace: Path) -> None:
    port = free_port()
    journal = str(workspace / "results/las/s/optuna.journal")
    command = [str(Path(sys.executable).with_name("optuna-dashboard")), journal, "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            study = json.loads(wait_for_response(f"http://127.0.0.1:{port}/api/studies/0", process=server))
        finally:
            server.terminate()
    assert study["name"] == "s" and len(study["trials"]) == 3


@pytest.mark.parametrize(
    ("call", "line"),
    [
        (lambda: tune("part", trails=3), "tune() has no option named trails. Choose from adaptor_lr, address"),
        (lambda: train("part", trials=3), "train() has no option named trials."),
        (
            lambda: tune("part", address="ray://h:1"),
            "tune() cannot submit a study to the remote cluster ray://h:1. Set",
        ),
        (lambda: tune("all"), "tune() takes a single category, got 'all'. Call it once per category"),
        (lambda: tune("nothing", data_root="."), "No category found in --data-root"),
        (lambda: train("part", demo=True), "--demo renders bracket_black only"),
        (lambda: tune("bracket_black", demo=True, trials=0), "--trials must be between 1 and 100000, got 0."),
        (
            lambda: load_champion("bolt", results="nowhere"),
            "/nowhere/mlflow.db does not exist or is not an MLflow store.",
        ),
    ],
)
def test_invalid_arguments_raise_one_line(
    call: Any, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        call()
    assert line in str(caught.value) and "\n" not in str(caught.value) and not list(tmp_path.iterdir())


def test_options_are_resolved_as_on_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_part(tmp_path)
    specs = []
    monkeypatch.setattr(
        "las_tune.study.launch_search", lambda given: specs.extend(given) or RunSummary((make_summary(),))
    )
    tune("part", data_root=tmp_path, sampler="gp", warm_start="other", storage=tmp_path / "s", space=Path("x.toml"))
    (spec,) = specs
    assert (spec.scheduler, spec.warm_start, spec.storage) == ("none", ("other",), str(tmp_path / "s"))
    assert spec.space == str(Path("x.toml").absolute()) and (spec.trials, spec.finalists, spec.seeds) == (32, 3, 3)


@pytest.mark.slow
def test_command_line_does_not_resume_a_study_of_the_library(workspace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "las_tune", "--resume", "--study", "s"], cwd=workspace, capture_output=True, text=True
    )
    assert done.returncode == 2 and "To resume a study of the library, repeat the call" in done.stderr
