"""The command line: help, flags and specs, and exit codes."""

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
from las_tune.config.demo_settings import DEMO_DEFAULTS
from las_tune.config.study_spec import MPDD_CATEGORIES, StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.reporting.run_summary import FailedStudy, RunSummary
from tests.parts import Run, make_part, make_trial, run_command
from tests.summaries import make_summary

ROOT = Path(__file__).parents[2]
HEAVY = {"torch", "torchvision", "ray", "mlflow", "optuna", "matplotlib", "numpy"}
Captured = Callable[..., list[StudySpec]]


def in_new_process(*arguments: str, timeout_s: int = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )


@pytest.fixture
def captured(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Captured:
    """Return a function that runs a command and returns the specs that were passed to the search or the training."""
    calls: list[list[StudySpec]] = []

    def search(specs: Sequence[StudySpec], listeners_of: Any, progress: Any) -> RunSummary:
        calls.append(list(specs))
        return RunSummary(())

    def train(spec: StudySpec, listeners: Sequence[Any], progress: Any) -> None:
        calls.append([spec])

    def specs_of(*arguments: str) -> list[StudySpec]:
        calls.clear()
        ended = run(*arguments)
        assert (ended.code, ended.err) == (0, "")
        assert len(calls) == 1 or arguments[0] == "train"
        return [spec for specs in calls for spec in specs]

    monkeypatch.setattr("las_tune.study.launch.run_studies", search)
    monkeypatch.setattr("las_tune.study.launch.run_single", train)
    monkeypatch.setattr("las_tune.terminal.print_run", lambda *_: None)
    monkeypatch.setattr("las_tune.terminal.print_training", lambda *_: None)
    monkeypatch.setattr("las_tune.study.launch.render_demo", lambda *_, **__: None)
    for name in ("part", "other"):
        make_part(tmp_path / "data/anomaly_dataset", name, 2, 2, 2)
    return specs_of


# --- help ---


def test_help_shows_groups_defaults_and_categories() -> None:
    done = in_new_process("-m", "las_tune", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for group in ("Commands", "Data", "Training", "Search", "Resources", "Results and record"):
        assert re.search(rf"^╭─ {group} ─+╮$", done.stdout, re.MULTILINE), group
    text = re.sub(r"[\s│]+", " ", done.stdout)
    assert all(category in text for category in MPDD_CATEGORIES)
    assert (
        f"[default: 288; demo: {DEMO_DEFAULTS['image_size']}]" in text
        and f"[default: 32; demo: {DEMO_DEFAULTS['trials']}]" in text
    )
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


def test_version_is_printed() -> None:
    done = in_new_process("-m", "las_tune", "--version")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, las_tune.__version__, "")


def test_error_is_the_only_line_on_stderr(tmp_path: Path) -> None:
    """In a new process, because libraries warn while they are imported."""
    done = in_new_process("-m", "las_tune", "--category", "part", "--data-root", str(tmp_path))
    assert done.returncode == 2 and "error: No category found in --data-root" in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1


# --- from flags to specs ---


def test_default_flags_give_the_default_spec(captured: Captured, tmp_path: Path) -> None:
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


def test_every_flag_reaches_the_spec(captured: Captured, tmp_path: Path) -> None:
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


def test_tune_is_the_default_command(captured: Captured) -> None:
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
def test_exclusive_flags_reach_the_spec(captured: Captured, command: str, flags: str, fields: dict[str, Any]) -> None:
    (spec,) = captured(command, "--category", "part", *flags.split())
    assert {name: getattr(spec, name) for name in fields} == fields


def test_hyperparameters_of_train_reach_the_spec(captured: Captured) -> None:
    arguments = "--adaptor-lr 1e-3 --discriminator-lr 2e-3 --alpha 0.25 --beta-mean 0.4 --beta-std 0 --fpr 0.05"
    (spec,) = captured("train", "--category", "part", *arguments.split())
    assert spec.train == TrainSpec(
        adaptor_lr=1e-3, discriminator_lr=2e-3, alpha=0.25, beta_mean=0.4, beta_std=0.0, fpr=0.05
    )
    (default,) = captured("train", "--category", "part")
    assert default.train == TrainSpec()


def test_every_hyperparameter_is_a_flag_of_train(captured: Captured) -> None:
    arguments = "--beta-min 0.1 --beta-max 0.7 --perlin-max-exponent 4 --foreground none --focal-gamma 1 --hard-share 1"
    more = "--weight-decay 0.01 --hidden-width 64 --no-use-adaptor --device cpu --tensorboard"
    (spec,) = captured("train", "--category", "part", *arguments.split(), *more.split())
    assert spec.tensorboard
    assert spec.train == TrainSpec(
        beta_min=0.1, beta_max=0.7, perlin_max_exponent=4, foreground="none", focal_gamma=1.0, hard_share=1.0,
        weight_decay=0.01, hidden_width=64, use_adaptor=False, device="cpu",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"), [("30m", 1800.0), ("8h", 28800.0), ("90s", 90.0), ("1h30m", 5400.0), ("1d", 86400.0)]
)
def test_time_budget_is_a_duration(captured: Captured, text: str, seconds: float) -> None:
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
    (single,) = captured("--category", "part", "--study", "s")
    assert (single.study, single.run) == ("s", "")


def test_train_trains_several_categories_in_turn(captured: Captured) -> None:
    specs = captured("train", "--category", "part", "--category", "other", "--study", "s")
    assert [(spec.category, spec.study) for spec in specs] == [("part", "s-part"), ("other", "s-other")]


def test_category_all_selects_every_category(captured: Captured) -> None:
    assert [spec.category for spec in captured("--category", "all", "--seed", "3")] == ["other", "part"]


def test_all_categories_are_checked_before_the_first_study_starts(captured: Captured, run: Run) -> None:
    captured("--category", "part")
    ended = run("--category", "part", "--category", "prat")
    assert (ended.code, ended.out) == (2, "")
    assert "--category 'prat' does not exist" in ended.err


@pytest.mark.parametrize("name", ["my part", "Träger", "_part", "teil(1)"])
def test_default_study_name_is_valid_for_any_folder(captured: Captured, tmp_path: Path, name: str) -> None:
    make_part(tmp_path / "data/anomaly_dataset", name, 2, 2, 2)
    (spec,) = captured("--category", name)
    assert spec.category == name
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*-\d{8}-\d{6}", spec.study)


# --- the demo ---


def test_demo_has_its_own_defaults(captured: Captured, tmp_path: Path) -> None:
    (spec,) = captured("--category", "bracket_black", "--demo")
    assert spec.demo
    assert spec.train == TrainSpec(
        **{name: DEMO_DEFAULTS[name] for name in ("image_size", "batch_size", "epochs", "backbone")}
    )
    assert spec.trials == DEMO_DEFAULTS["trials"]
    assert spec.train.backbone == "efficientnet_lite0", "its weights are installed by pip, so no download is needed"
    assert spec.data_root == tmp_path / "data/demo/anomaly_dataset"
    assert spec.textures == tmp_path / "data/demo/textures"


def test_flags_override_demo_defaults(captured: Captured) -> None:
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
def test_storage_and_space_become_absolute(
    captured: Captured, tmp_path: Path, flag: str, given: str, kept: str
) -> None:
    (spec,) = captured("--category", "part", flag, given)
    assert getattr(spec, flag.removeprefix("--")) == kept.format(here=tmp_path)


def test_keywords_of_backbone_weights_are_not_paths(captured: Captured) -> None:
    for keyword in ("imagenet", "random"):
        (spec,) = captured("--category", "part", "--backbone-weights", keyword)
        assert spec.train.backbone_weights == keyword


def test_recorded_command_has_no_password(captured: Captured) -> None:
    from las_tune.space.search_space import load_space
    from las_tune.study.publication import study_parameters

    (spec,) = captured("--category", "part", "--tracking-uri", "postgresql://me:hush@host/db", "--seed", "4")
    recorded = study_parameters(spec, load_space("default"))
    assert recorded["command"] == "python -m las_tune --category part --tracking-uri postgresql://***@host/db --seed 4"
    assert "hush" not in str(recorded)


# --- exit codes ---


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (
            UserError("A value\nof two lines is wrong", remedy="Do this"),
            2,
            "error: A value of two lines is wrong. Do this.\n",
        ),
        (KeyboardInterrupt(), 130, "Stopped. Run the same command with --study mine to resume.\n"),
    ],
)
def test_errors_set_the_exit_code_and_the_last_line(
    captured: Captured, run: Run, monkeypatch: pytest.MonkeyPatch, error: Any, code: int, line: str
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("las_tune.study.launch.run_studies", fail)
    ended = run("--category", "part", "--study", "mine")
    assert (ended.code, ended.err) == (code, line)


def test_internal_errors_keep_their_traceback(
    captured: Captured, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("internal")

    captured("--category", "part")
    monkeypatch.setattr("las_tune.study.launch.run_studies", fail)
    with pytest.raises(ValueError, match="internal"):
        run_command(monkeypatch, capsys, ["--category", "part"])


def test_run_is_displayed_and_a_failed_study_sets_the_exit_code(
    captured: Captured, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    printed: list[Any] = []
    studies = [make_summary(study="s-part"), FailedStudy("s-other", "other", "a reason")]

    def search(specs: Sequence[StudySpec], listeners_of: Any, progress: Any) -> RunSummary:
        progress("checking", 0, 1)
        for number, spec in enumerate(specs):
            trial = make_trial(number, [0.5], status="completed")
            for listener in listeners_of(spec):
                listener.trial_started(trial)
                listener.epoch_ended(trial)
                listener.trial_ended(trial)
        return RunSummary(tuple(studies))

    monkeypatch.setattr("las_tune.study.launch.run_studies", search)
    monkeypatch.setattr("las_tune.terminal.print_run", lambda *arguments: printed.append(arguments))
    ended = run("--category", "part", "--category", "other", "--study", "s")
    assert (ended.code, ended.err) == (2, "")
    ((run_summary, specs),) = printed
    assert run_summary == RunSummary(tuple(studies)) and [spec.study for spec in specs] == ["s-part", "s-other"]
    assert "run s, 2 categories, 32 trials of 50 epochs each" in ended.out
    lines = ended.out.splitlines()
    assert lines[1] == "checking ..."
    assert [line.split()[0] for line in lines[2:]] == ["part", "other"]
    del studies[1]
    assert run("--category", "part", "--category", "other", "--study", "s").code == 0
