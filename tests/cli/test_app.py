from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import las_tune
from las_tune.config.demo_settings import DEMO
from las_tune.config.study_spec import MPDD_CATEGORIES, StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from tests.parts import Run, make_part, make_trial, run_command

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "ray", "mlflow", "optuna", "matplotlib", "numpy"}
Captured = Callable[..., list[StudySpec]]


def in_new_process(*arguments: str, timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture
def captured(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Captured:
    """A function that runs a command and returns the specs that reached the search, all at once, or the training."""
    calls: list[list[StudySpec]] = []

    def search(specs: Sequence[StudySpec], listeners_of: Any, progress: Any) -> dict[str, Any]:
        calls.append(list(specs))
        return {"studies": [], "shared_configuration": None}

    def train(spec: StudySpec, listeners: Sequence[Any], progress: Any) -> None:
        calls.append([spec])

    def specs_of(*arguments: str) -> list[StudySpec]:
        calls.clear()
        ended = run(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert len(calls) == 1 or arguments[0] == "train"
        return [spec for specs in calls for spec in specs]

    monkeypatch.setattr("las_tune.study.run.run_studies", search)
    monkeypatch.setattr("las_tune.study.single.run_single", train)
    monkeypatch.setattr("las_tune.terminal.tables.print_run", lambda *_: None)
    monkeypatch.setattr("las_tune.terminal.tables.print_training", lambda *_: None)
    monkeypatch.setattr("las_tune.data.demo_category.render_demo", lambda *_, **__: None)
    for name in ("part", "other"):
        make_part(tmp_path / "data/anomaly_dataset", name, 2, 2, 2)
    return specs_of


# --- help ---


def test_help_tells_groups_and_categories() -> None:
    done = in_new_process("-m", "las_tune", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for group in ("Commands", "Data", "Training", "Search", "Resources", "Results and record"):
        assert re.search(rf"^╭─ {group} ─+╮$", done.stdout, re.MULTILINE), group
    text = re.sub(r"[\s│]+", " ", done.stdout)
    assert all(category in text for category in MPDD_CATEGORIES)
    assert f"[default: 288; demo: {DEMO['image_size']}]" in text and f"[default: 32; demo: {DEMO['trials']}]" in text
    assert "python -m las_tune --category bracket_black --demo" in text


@pytest.mark.parametrize(
    "program",
    ["import las_tune.cli.app", "import las_tune.cli.app as c; c.app(['--help'], result_action='return_value')"],
)
def test_help_loads_nothing_heavy(program: str) -> None:
    done = in_new_process("-c", f"import sys; {program}; print('loaded:', *sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.rpartition("loaded:")[2].split())
    assert "las_tune.cli.app" in loaded
    assert not loaded & HEAVY


def test_version() -> None:
    done = in_new_process("-m", "las_tune", "--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, las_tune.__version__, "")


def test_an_error_is_all_that_stands_on_stderr(tmp_path: Path) -> None:
    """In a process of its own: what libraries warn of while they load would stand there, too."""
    done = in_new_process("-m", "las_tune", "--category", "part", "--data-root", str(tmp_path))
    assert done.returncode == 2 and "error: --data-root must hold at least one category" in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# --- from flags to specs ---


def test_defaults_are_the_seeds(captured: Captured, tmp_path: Path) -> None:
    (spec,) = captured("--category", "part")
    assert spec.train == TrainSpec()
    assert (spec.train.image_size, spec.train.batch_size, spec.train.epochs, spec.train.seed) == (288, 8, 50, 0)
    assert (spec.train.backbone, spec.train.backbone_weights) == ("wide_resnet50_2", "imagenet")
    assert (spec.category, spec.trials, spec.sampler, spec.scheduler, spec.space) == ("part", 32, "tpe", "asha", "")
    assert spec.data_root == tmp_path / "data/anomaly_dataset"
    assert spec.textures == tmp_path / "data/dtd"
    assert spec.results == tmp_path / "results/las"
    assert re.fullmatch(r"part-\d{8}-\d{6}", spec.study)
    assert (spec.gpus_per_trial, spec.cpus_per_trial, spec.max_concurrent, spec.time_budget_s) == (None,) * 4
    assert (spec.address, spec.storage, spec.tracking_uri, spec.experiment) == (None, "", "", "las_tune")
    assert (spec.skip_broken, spec.demo) == (False, False)
    assert (spec.holdout, spec.finalists, spec.seeds, spec.store_limit_gb) == (0.5, 3, 3, None)
    assert (spec.validation, spec.protocol, spec.leakage_gap, spec.warm_start, spec.run) == (
        "labelled", "sealed", False, (), ""
    )  # fmt: skip
    assert spec.command == "python -m las_tune --category part"


def test_every_flag_arrives(captured: Captured, tmp_path: Path) -> None:
    arguments = (
        "--category part --textures t --skip-broken --image-size 64 --batch-size 4 --epochs 3 --seed 7 "
        "--backbone resnet18 --backbone-weights w.pth --objective worst_defect --fpr 0.05 --trials 5 --space connector "
        "--sampler random --scheduler none --patience 9 --time-budget 30m --gpus-per-trial 0.5 --cpus-per-trial 2 "
        "--max-concurrent 3 --address auto --storage s3://bucket/x --results r --study mine "
        "--tracking-uri http://host:5000 --experiment e --holdout 0.4 --finalists 2 --seeds 4 --store-dtype float16 "
        "--store-limit-gb 1.5 --head-precision tf32 --leakage-gap --warm-start earlier other"
    )
    (spec,) = captured(*arguments.split())
    assert spec == StudySpec(
        category="part",
        study="mine",
        train=TrainSpec(
            image_size=64,
            batch_size=4,
            epochs=3,
            seed=7,
            backbone="resnet18",
            backbone_weights=str(tmp_path / "w.pth"),
            objective="worst_defect",
            fpr=0.05,
            store_dtype="float16",
            head_precision="tf32",
        ),
        data_root=tmp_path / "data/anomaly_dataset",
        holdout=0.4,
        finalists=2,
        seeds=4,
        store_limit_gb=1.5,
        textures=tmp_path / "t",
        results=tmp_path / "r",
        space="connector",
        trials=5,
        sampler="random",
        scheduler="none",
        patience=9,
        gpus_per_trial=0.5,
        cpus_per_trial=2,
        max_concurrent=3,
        time_budget_s=1800.0,
        address="auto",
        storage="s3://bucket/x",
        tracking_uri="http://host:5000",
        experiment="e",
        skip_broken=True,
        leakage_gap=True,
        warm_start=("earlier", "other"),
        command=f"python -m las_tune {arguments}",
    )


def test_the_command_tune_is_the_default_one(captured: Captured) -> None:
    (default,) = captured("--category", "part", "--study", "s")
    (named,) = captured("tune", "--category", "part", "--study", "s")
    assert replace(named, command="") == replace(default, command="")


@pytest.mark.parametrize(
    ("command", "flags", "fields"),
    [
        ("tune", "--validation synthetic", {"validation": "synthetic"}),
        ("tune", "--protocol paper", {"protocol": "paper"}),
        ("tune", "--warm-start one --warm-start two", {"warm_start": ("one", "two")}),
        ("train", "--validation synthetic", {"validation": "synthetic"}),
    ],
)
def test_flags_that_exclude_others_arrive(captured: Captured, command: str, flags: str, fields: dict[str, Any]) -> None:
    (spec,) = captured(command, "--category", "part", *flags.split())
    assert {name: getattr(spec, name) for name in fields} == fields


def test_hyperparameters_of_train_arrive(captured: Captured) -> None:
    arguments = "--adaptor-lr 1e-3 --discriminator-lr 2e-3 --alpha 0.25 --beta-mean 0.4 --beta-std 0 --fpr 0.05"
    (spec,) = captured("train", "--category", "part", *arguments.split())
    assert spec.train == TrainSpec(
        adaptor_lr=1e-3, discriminator_lr=2e-3, alpha=0.25, beta_mean=0.4, beta_std=0.0, fpr=0.05
    )
    (plain,) = captured("train", "--category", "part")
    assert plain.train == TrainSpec()


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("8h", 28800.0), ("90s", 90.0), ("1h30m", 5400.0), ("1d", 86400.0)]
)
def test_time_budgets(captured: Captured, text: str, seconds: float) -> None:
    (spec,) = captured("--category", "part", "--time-budget", text)
    assert spec.time_budget_s == seconds


def test_several_categories_are_several_studies_of_one_run(captured: Captured, tmp_path: Path) -> None:
    specs = captured("--category", "part", "--category", "other", "--category", "part", "--study", "s")
    assert [(spec.category, spec.study, spec.run) for spec in specs] == [
        ("part", "s-part", "s"), ("other", "s-other", "s")
    ]  # fmt: skip
    assert {spec.run_folder for spec in specs} == {tmp_path / "results/las/s"}
    unnamed = captured("--category", "part", "--category", "other")
    assert [spec.study for spec in unnamed] == [f"{unnamed[0].run}-{name}" for name in ("part", "other")]
    assert re.fullmatch(r"run-\d{8}-\d{6}", unnamed[0].run)
    (alone,) = captured("--category", "part", "--study", "s")
    assert (alone.study, alone.run) == ("s", "")


def test_several_categories_are_trained_one_by_one(captured: Captured) -> None:
    specs = captured("train", "--category", "part", "--category", "other", "--study", "s")
    assert [(spec.category, spec.study) for spec in specs] == [("part", "s-part"), ("other", "s-other")]


def test_all_is_every_category_found(captured: Captured) -> None:
    assert [spec.category for spec in captured("--category", "all", "--seed", "3")] == ["other", "part"]


def test_a_later_category_is_checked_before_the_first_runs(captured: Captured, run: Run) -> None:
    captured("--category", "part")
    ended = run("--category", "part", "--category", "prat")
    assert (ended.code, ended.out) == (2, "")
    assert "got 'prat' in " in ended.err


@pytest.mark.parametrize("name", ["my part", "Träger", "_part", "teil(1)"])
def test_any_name_of_a_folder_has_a_default_name_of_its_study(captured: Captured, tmp_path: Path, name: str) -> None:
    make_part(tmp_path / "data/anomaly_dataset", name, 2, 2, 2)
    (spec,) = captured("--category", name)
    assert spec.category == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*-\d{8}-\d{6}", spec.study)


# --- the demo ---


def test_the_demos_values(captured: Captured, tmp_path: Path) -> None:
    (spec,) = captured("--category", "bracket_black", "--demo")
    assert spec.demo
    assert spec.train == TrainSpec(**{name: DEMO[name] for name in ("image_size", "batch_size", "epochs", "backbone")})
    assert spec.trials == DEMO["trials"]
    assert spec.train.backbone == "efficientnet_lite0", "its weights come by pip, no data needs to be fetched"
    assert spec.data_root == tmp_path / "data/demo/anomaly_dataset"
    assert spec.textures == tmp_path / "data/demo/textures"


def test_flags_beat_the_demo(captured: Captured) -> None:
    flags = "--trials 32 --epochs 50 --image-size 288 --batch-size 8 --backbone wide_resnet50_2 --seed 5"
    (spec,) = captured("--category", "bracket_black", "--demo", *flags.split())
    assert spec.train == TrainSpec(seed=5)
    assert (spec.demo, spec.trials) == (True, 32)


# --- paths, addresses, secrets ---


@pytest.mark.parametrize(
    ("flag", "field"), [("--data-root", "data_root"), ("--textures", "textures"), ("--results", "results")]
)
def test_folders_become_absolute(captured: Captured, tmp_path: Path, flag: str, field: str) -> None:
    make_part(tmp_path / "near", train=2, good=2, rust=2)
    (spec,) = captured("--category", "part", flag, "near")
    assert getattr(spec, field) == tmp_path / "near"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("sqlite:///mine.db", "sqlite:///{here}/mine.db"),
        ("sqlite:///sub/mine.db", "sqlite:///{here}/sub/mine.db"),
        ("sqlite:////tmp/mine.db", "sqlite:////tmp/mine.db"),
        ("http://host:5000", "http://host:5000"),
        ("runs", "{here}/runs"),
    ],
)
def test_tracking_uris_become_absolute(captured: Captured, tmp_path: Path, given: str, kept: str) -> None:
    (spec,) = captured("--category", "part", "--tracking-uri", given)
    assert spec.tracking_uri == kept.format(here=tmp_path)


@pytest.mark.parametrize(
    ("flag", "given", "kept"),
    [
        ("--storage", "shared", "{here}/shared"),
        ("--storage", "gs://bucket/x", "gs://bucket/x"),
        ("--space", "connector", "connector"),
        ("--space", "my.toml", "{here}/my.toml"),
        ("--space", "spaces/my", "{here}/spaces/my"),
    ],
)
def test_files_of_the_search_become_absolute(
    captured: Captured, tmp_path: Path, flag: str, given: str, kept: str
) -> None:
    (spec,) = captured("--category", "part", flag, given)
    assert getattr(spec, flag.removeprefix("--")) == kept.format(here=tmp_path)


def test_words_of_backbone_weights_are_no_files(captured: Captured) -> None:
    for word in ("imagenet", "random"):
        (spec,) = captured("--category", "part", "--backbone-weights", word)
        assert spec.train.backbone_weights == word


def test_the_recorded_command_holds_no_password(captured: Captured) -> None:
    from las_tune.space.search_space import load_space
    from las_tune.study.publication import study_parameters

    (spec,) = captured("--category", "part", "--tracking-uri", "postgresql://me:hush@host/db", "--seed", "4")
    recorded = study_parameters(spec, load_space("default"))
    assert recorded["command"] == "python -m las_tune --category part --tracking-uri postgresql://***@host/db --seed 4"
    assert "hush" not in str(recorded)


# --- how a command ends ---


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            UserError("A rule", "a value\nof two lines", "Do this"),
            2,
            "error: A rule, got a value of two lines. Do this.\n",
        ),
        (KeyboardInterrupt(), 130, "stopped: the same command with --study mine goes on where it was\n"),
    ],
)
def test_ends(captured: Captured, run: Run, monkeypatch: pytest.MonkeyPatch, error: Any, code: int, line: str) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("las_tune.study.run.run_studies", fail)
    ended = run("--category", "part", "--study", "mine")
    assert (ended.code, ended.err) == (code, line)


def test_our_own_mistakes_keep_their_traceback(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("ours")

    captured("--category", "part")
    monkeypatch.setattr("las_tune.study.run.run_studies", fail)
    with pytest.raises(ValueError, match="ours"):
        run_command(monkeypatch, capsys, ["--category", "part"])


def test_each_study_is_drawn_and_all_are_told_at_the_end(
    captured: Captured, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A study that failed among others is told, and makes the exit code."""
    told: list[Any] = []
    summaries = [{"study": "s-part", "category": "part"}, {"study": "s-other", "category": "other", "failed": "why"}]

    def search(specs: Sequence[StudySpec], listeners_of: Any, progress: Any) -> dict[str, Any]:
        progress("looking", 0, 1)
        for number, spec in enumerate(specs):
            trial = make_trial(number, [0.5], status="completed")
            for listener in listeners_of(spec):
                listener.trial_started(trial)
                listener.epoch_ended(trial)
                listener.trial_ended(trial)
        return {"studies": summaries, "shared_configuration": None}

    monkeypatch.setattr("las_tune.study.run.run_studies", search)
    monkeypatch.setattr("las_tune.terminal.tables.print_run", lambda *given: told.append(given))
    ended = run("--category", "part", "--category", "other", "--study", "s")
    assert (ended.code, ended.err) == (2, "")
    ((printed, specs),) = told
    assert printed["studies"] == summaries and [spec.study for spec in specs] == ["s-part", "s-other"]
    assert "run s, 2 categories, 32 trials of 50 epochs each" in ended.out
    lines = ended.out.splitlines()
    assert lines[1] == "looking ..."
    assert [line.split()[0] for line in lines[2:]] == ["part", "other"]
    del summaries[1]["failed"]
    assert run("--category", "part", "--category", "other", "--study", "s").code == 0
