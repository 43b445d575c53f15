from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.study_spec import StudySpec, model_name
from las_tune.config.train_spec import TrainSpec, tunable_names
from las_tune.errors import DataError, SpaceError, UserError

STUDY: dict[str, Any] = {
    "category": "part",
    "study": "first",
    "train": TrainSpec(),
    "data_root": Path("/data"),
    "textures": Path("/textures"),
    "results": Path("/results"),
}
NAN = float("nan")


def test_defaults_are_the_published_values() -> None:
    spec = TrainSpec()
    assert (spec.adaptor_lr, spec.discriminator_lr, spec.weight_decay) == (1e-4, 2e-4, 1e-5)
    assert (spec.alpha, spec.beta_mean, spec.beta_std) == (1 / 3, 0.5, 0.1)
    assert (spec.image_size, spec.batch_size, spec.epochs, spec.seed) == (288, 8, 50, 0)
    assert (spec.backbone, spec.backbone_weights, spec.objective) == ("wide_resnet50_2", "imagenet", "auto")
    assert spec.fpr == 0.01


@pytest.mark.parametrize(
    ("field", "accepted"),
    [
        ("adaptor_lr", (1e-12, 10.0)),
        ("discriminator_lr", (1e-12, 10.0)),
        ("alpha", (0.0, 0.5)),
        ("beta_mean", (0.0, 1.0)),
        ("beta_std", (0.0, 1.0)),
        ("beta_min", (0.0, 0.8)),
        ("beta_max", (0.2, 1.0)),
        ("perlin_max_exponent", (0, 7)),
        ("foreground", ("otsu", "none")),
        ("focal_gamma", (0.0, 10.0)),
        ("hard_share", (1e-6, 1.0)),
        ("weight_decay", (0.0, 1.0)),
        ("hidden_width", (1, 4096)),
        ("use_adaptor", (True, False)),
        ("image_size", (32, 2048)),
        ("batch_size", (1, 512)),
        ("epochs", (1, 1000)),
        ("seed", (0, 2**31 - 1)),
        ("fpr", (1e-9, 0.999)),
        ("objective", ("auto", "image_auroc", "pixel_aupro", "combined", "recall_at_fpr", "worst_defect")),
    ],
)
def test_bounds_of_each_range_are_accepted(field: str, accepted: tuple[Any, ...]) -> None:
    for value in accepted:
        assert getattr(TrainSpec(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"adaptor_lr": 0.0}, "adaptor_lr must be greater than 0 and finite, got 0.0. The default is 0.0001."),
        ({"adaptor_lr": float("inf")}, "adaptor_lr must be greater than 0 and finite, got inf. The default is 0.0001."),
        ({"adaptor_lr": NAN}, "adaptor_lr must be greater than 0 and finite, got nan. The default is 0.0001."),
        (
            {"discriminator_lr": -1e-4},
            "discriminator_lr must be greater than 0 and finite, got -0.0001. The default is 0.0002.",
        ),
        ({"alpha": 0.51}, "alpha must be in [0, 1/2] (α of GLASS eq. 3), got 0.51. The default is 1/3."),
        ({"alpha": -0.1}, "alpha must be in [0, 1/2] (α of GLASS eq. 3), got -0.1. The default is 1/3."),
        ({"alpha": NAN}, "alpha must be in [0, 1/2] (α of GLASS eq. 3), got nan. The default is 1/3."),
        ({"beta_mean": 1.1}, "beta_mean must be between 0 and 1, got 1.1. The default is 0.5."),
        ({"beta_mean": -0.1}, "beta_mean must be between 0 and 1, got -0.1. The default is 0.5."),
        ({"beta_std": -0.1}, "beta_std must be between 0 and 1, got -0.1. The default is 0.1."),
        ({"beta_std": 1.5}, "beta_std must be between 0 and 1, got 1.5. The default is 0.1."),
        (
            {"beta_min": 0.9},
            "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got 0.9 and 0.8. "
            "The defaults are 0.2 and 0.8.",
        ),
        (
            {"beta_min": -0.1},
            "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got -0.1 and 0.8. "
            "The defaults are 0.2 and 0.8.",
        ),
        (
            {"beta_max": 1.1},
            "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got 0.2 and 1.1. "
            "The defaults are 0.2 and 0.8.",
        ),
        ({"perlin_max_exponent": 8}, "perlin_max_exponent must be between 0 and 7, got 8. The default is 5."),
        ({"perlin_max_exponent": -1}, "perlin_max_exponent must be between 0 and 7, got -1. The default is 5."),
        ({"foreground": "sam"}, "foreground must be one of otsu, none, got 'sam'. The default is otsu."),
        ({"focal_gamma": -1.0}, "focal_gamma must be between 0 and 10, got -1.0. The default is 2."),
        ({"focal_gamma": 11.0}, "focal_gamma must be between 0 and 10, got 11.0. The default is 2."),
        ({"hard_share": 0.0}, "hard_share must be in (0, 1], got 0.0. The default is 0.5."),
        ({"hard_share": 1.1}, "hard_share must be in (0, 1], got 1.1. The default is 0.5."),
        ({"weight_decay": -1.0}, "weight_decay must be between 0 and 1, got -1.0. The default is 1e-05."),
        ({"weight_decay": 1.1}, "weight_decay must be between 0 and 1, got 1.1. The default is 1e-05."),
        ({"hidden_width": 0}, "hidden_width must be at least 1, got 0. The default is 768."),
        ({"image_size": 31}, "--image-size must be between 32 and 2048 pixels, got 31. The default is 288."),
        ({"image_size": 2049}, "--image-size must be between 32 and 2048 pixels, got 2049. The default is 288."),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0. The default is 8."),
        ({"epochs": 0}, "--epochs must be at least 1, got 0. The default is 50."),
        ({"seed": -1}, "--seed must be between 0 and 2147483647, got -1. The default is 0."),
        ({"seed": 2**31}, "--seed must be between 0 and 2147483647, got 2147483648. The default is 0."),
        ({"fpr": 0.0}, "--fpr must be between 0 and 1, both excluded, got 0.0. The default is 0.01."),
        ({"fpr": 1.0}, "--fpr must be between 0 and 1, both excluded, got 1.0. The default is 0.01."),
        ({"fpr": NAN}, "--fpr must be between 0 and 1, both excluded, got nan. The default is 0.01."),
        (
            {"objective": "auc"},
            "--objective must be one of auto, image_auroc, pixel_aupro, combined, recall_at_fpr, worst_defect, "
            "got 'auc'. The default is auto.",
        ),
        (
            {"store_dtype": "float64"},
            "--store-dtype must be one of float32, float16, bfloat16, got 'float64'. The default is float32.",
        ),
        (
            {"head_precision": "int8"},
            "--head-precision must be one of float32, tf32, got 'int8'. The default is float32.",
        ),
        ({"device": "gpu"}, "--device must be auto, cpu, cuda, cuda:INDEX or mps, got 'gpu'. The default is auto."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_train_spec_rejects_invalid_values_in_one_line(changes: dict[str, Any], line: str) -> None:
    for make in (TrainSpec, TrainSpec().replace):
        with pytest.raises(UserError) as error:
            make(**changes)
        assert str(error.value) == line


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"study": "a/b"},
            "--study must be 1 to 100 letters, digits, '_', '-' or '.', starting with a letter or digit, got 'a/b'. "
            "Choose another name.",
        ),
        ({"study": ""}, "got ''. Choose another name."),
        ({"study": ".hidden"}, "got '.hidden'. Choose another name."),
        ({"study": "a" * 101}, "--study must be 1 to 100 letters"),
        ({"study": "new\nline"}, r"got 'new\nline'. Choose another name."),
        ({"study": "ends\n"}, r"got 'ends\n'. Choose another name."),
        ({"trials": 0}, "--trials must be between 1 and 100000, got 0. The default is 32."),
        (
            {"sampler": "nsga"},
            "--sampler must be one of tpe, gp, cmaes, random, grid, got 'nsga'. The default is tpe.",
        ),
        ({"scheduler": "pbt"}, "--scheduler must be one of asha, hyperband, median, none, got 'pbt'."),
        ({"patience": 0}, "--patience must be at least 1, got 0. Leave it out to run all trials."),
        ({"patience": -3}, "--patience must be at least 1, got -3. Leave it out to run all trials."),
        ({"finalists": 0}, "--finalists must be at least 1, got 0. The default is 3."),
        (
            {"seeds": 1},
            "--seeds must be at least 2, got 1. Use several seeds to measure the noise between training runs.",
        ),
        ({"holdout": 0.0}, "--holdout must be between 0 and 1, both excluded, got 0.0. The default is 0.5."),
        ({"holdout": NAN}, "--holdout must be between 0 and 1, both excluded, got nan. The default is 0.5."),
        (
            {"validation": "real"},
            "--validation must be one of labelled, synthetic, got 'real'. The default is labelled.",
        ),
        ({"protocol": "open"}, "--protocol must be one of sealed, paper, got 'open'. The default is sealed."),
        (
            {"protocol": "paper", "validation": "synthetic"},
            "--protocol paper needs labeled test images, so it cannot be used with --validation synthetic. "
            "Drop one of the two.",
        ),
        (
            {"leakage_gap": True, "validation": "synthetic"},
            "--leakage-gap needs labeled test images, so it cannot be used with --validation synthetic. "
            "Drop one of the two.",
        ),
        (
            {"leakage_gap": True, "protocol": "paper"},
            "--leakage-gap cannot be used with --protocol paper, because it estimates the bias of that protocol. "
            "Drop --protocol paper.",
        ),
        (
            {"extend": 3, "sampler": "grid"},
            "--extend cannot be used with --sampler grid, because a grid is evaluated completely. "
            "Start a new --study with a larger grid.",
        ),
        (
            {"warm_start": ("other",), "sampler": "grid"},
            "--warm-start cannot be used with --sampler grid, because a grid is evaluated in any case. "
            "Drop one of the two.",
        ),
        ({"store_limit_gb": -1.0}, "--store-limit-gb must be at least 0, got -1.0. The default is half of the memory."),
        ({"gpus_per_trial": -0.5}, "--gpus-per-trial must be at least 0, got -0.5. The default is 1 if there is any."),
        ({"gpus_per_trial": NAN}, "--gpus-per-trial must be at least 0, got nan. The default is 1 if there is any."),
        ({"cpus_per_trial": 0.0}, "--cpus-per-trial must be greater than 0 and finite, got 0.0."),
        ({"max_concurrent": 0}, "--max-concurrent must be at least 1, got 0. The default is as many as fit."),
        (
            {"time_budget_s": 0.0},
            "--time-budget must be greater than 0 seconds and finite, got 0.0. Give a duration such as 30m or 8h.",
        ),
        (
            {"time_budget_s": -5.0},
            "--time-budget must be greater than 0 seconds and finite, got -5.0. Give a duration such as 30m or 8h.",
        ),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_study_spec_rejects_invalid_values_in_one_line(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UserError) as error:
        StudySpec(**(STUDY | changes))
    assert line in str(error.value)
    assert "\n" not in str(error.value)


def test_study_spec_accepts_valid_values() -> None:
    spec = StudySpec(**STUDY, gpus_per_trial=0, cpus_per_trial=0.5, max_concurrent=1, time_budget_s=0.1, trials=1)
    assert spec.folder == Path("/results/first")
    for name in ("a", "A-1_b.2", "0" * 100):
        assert StudySpec(**(STUDY | {"study": name})).study == name


def test_studies_of_one_run_share_a_folder() -> None:
    spec = StudySpec(**(STUDY | {"study": "night-part", "run": "night"}))
    assert (spec.folder, spec.run_folder) == (Path("/results/night-part"), Path("/results/night"))
    assert StudySpec(**STUDY).run_folder == Path("/results/first"), "a single study has its own folder"


def test_only_the_paper_protocol_selects_on_the_test_set() -> None:
    assert StudySpec(**STUDY, protocol="paper").is_test_selected
    for fields in ({}, {"validation": "synthetic"}, {"leakage_gap": True}):
        assert not StudySpec(**STUDY, **fields).is_test_selected


@pytest.mark.parametrize("name", ["data_root", "textures", "results"])
def test_relative_paths_fail_an_assertion(name: str) -> None:
    with pytest.raises(AssertionError, match=name):
        StudySpec(**(STUDY | {name: Path("here")}))


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainSpec().alpha = 0.1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        StudySpec(**STUDY).trials = 1  # type: ignore[misc]


def test_replace_keeps_other_values() -> None:
    spec = TrainSpec(seed=3).replace(alpha=0.1, epochs=2)
    assert spec == TrainSpec(seed=3, alpha=0.1, epochs=2)


def test_replace_lists_known_names() -> None:
    with pytest.raises(UserError) as error:
        TrainSpec().replace(alhpa=0.1, zeta=1)
    assert str(error.value) == (
        f"There is no hyperparameter named alhpa, zeta. Choose from {', '.join(tunable_names())}."
    )


def test_tunable_names_are_the_hyperparameters() -> None:
    assert tunable_names() == (
        "adaptor_lr",
        "discriminator_lr",
        "alpha",
        "beta_mean",
        "beta_std",
        "beta_min",
        "beta_max",
        "perlin_max_exponent",
        "foreground",
        "focal_gamma",
        "hard_share",
        "weight_decay",
        "hidden_width",
        "use_adaptor",
        "batch_size",
    )
    spec = TrainSpec(alpha=0.25)
    assert spec.hyperparameters() == {name: getattr(spec, name) for name in tunable_names()}
    assert TrainSpec().replace(**spec.hyperparameters()) == spec


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("A must hold, got 0"), "A must hold, got 0."),
        (UserError("A must hold, got x", remedy="Do this"), "A must hold, got x. Do this."),
    ],
)
def test_error_message_has_problem_and_remedy(error: UserError, line: str) -> None:
    assert str(error) == line
    assert isinstance(error, ValueError)


def test_data_and_space_errors_are_user_errors() -> None:
    assert issubclass(DataError, UserError) and issubclass(SpaceError, UserError)


def test_model_name_replaces_invalid_characters() -> None:
    assert [model_name(name) for name in ("metal_plate", "a:b/c", "tür 1 #?")] == [
        "las-metal_plate", "las-a-b-c", "las-tür 1 --",
    ]  # fmt: skip
