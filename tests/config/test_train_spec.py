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


def test_defaults_are_the_seed_programs() -> None:
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
def test_ends_of_each_range_are_accepted(field: str, accepted: tuple[Any, ...]) -> None:
    for value in accepted:
        assert getattr(TrainSpec(**{field: value}), field) == value


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"adaptor_lr": 0.0}, "adaptor_lr must be above 0, got 0.0. the seed's values are 1e-4 and 2e-4."),
        ({"adaptor_lr": float("inf")}, "adaptor_lr must be above 0, got inf. the seed's values are 1e-4 and 2e-4."),
        ({"adaptor_lr": NAN}, "adaptor_lr must be above 0, got nan. the seed's values are 1e-4 and 2e-4."),
        (
            {"discriminator_lr": -1e-4},
            "discriminator_lr must be above 0, got -0.0001. the seed's values are 1e-4 and 2e-4.",
        ),
        ({"alpha": 0.51}, "alpha must lie in [0, 1/2] (GLASS eq. 3), got 0.51. the seed's value is 1/3."),
        ({"alpha": -0.1}, "alpha must lie in [0, 1/2] (GLASS eq. 3), got -0.1. the seed's value is 1/3."),
        ({"alpha": NAN}, "alpha must lie in [0, 1/2] (GLASS eq. 3), got nan. the seed's value is 1/3."),
        ({"beta_mean": 1.1}, "beta_mean must lie in [0, 1], got 1.1. the seed's value is 0.5."),
        ({"beta_mean": -0.1}, "beta_mean must lie in [0, 1], got -0.1. the seed's value is 0.5."),
        ({"beta_std": -0.1}, "beta_std must lie in [0, 1], got -0.1. the seed's value is 0.1."),
        ({"beta_std": 1.5}, "beta_std must lie in [0, 1], got 1.5. the seed's value is 0.1."),
        ({"beta_min": 0.9}, "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got (0.9, 0.8)."),
        ({"beta_min": -0.1}, "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got (-0.1, 0.8)."),
        ({"beta_max": 1.1}, "beta_min and beta_max must satisfy 0 <= beta_min <= beta_max <= 1, got (0.2, 1.1)."),
        ({"perlin_max_exponent": 8}, "perlin_max_exponent must lie in 0..7, got 8."),
        ({"perlin_max_exponent": -1}, "perlin_max_exponent must lie in 0..7, got -1."),
        ({"foreground": "sam"}, "foreground must be otsu or none, got 'sam'."),
        ({"focal_gamma": -1.0}, "focal_gamma must lie in [0, 10], got -1.0."),
        ({"focal_gamma": 11.0}, "focal_gamma must lie in [0, 10], got 11.0."),
        ({"hard_share": 0.0}, "hard_share must lie in (0, 1], got 0.0."),
        ({"hard_share": 1.1}, "hard_share must lie in (0, 1], got 1.1."),
        ({"weight_decay": -1.0}, "weight_decay must lie in [0, 1], got -1.0."),
        ({"weight_decay": 1.1}, "weight_decay must lie in [0, 1], got 1.1."),
        ({"hidden_width": 0}, "hidden_width must be at least 1, got 0."),
        ({"image_size": 31}, "--image-size must lie in 32..2048 pixels, got 31."),
        ({"image_size": 2049}, "--image-size must lie in 32..2048 pixels, got 2049."),
        ({"batch_size": 0}, "--batch-size must be at least 1, got 0."),
        ({"epochs": 0}, "--epochs must be at least 1, got 0."),
        ({"seed": -1}, "--seed must lie in 0..2147483647, got -1."),
        ({"seed": 2**31}, "--seed must lie in 0..2147483647, got 2147483648."),
        ({"fpr": 0.0}, "--fpr must lie between 0 and 1, both excluded, got 0.0. the usual value is 0.01."),
        ({"fpr": 1.0}, "--fpr must lie between 0 and 1, both excluded, got 1.0. the usual value is 0.01."),
        ({"fpr": NAN}, "--fpr must lie between 0 and 1, both excluded, got nan. the usual value is 0.01."),
        (
            {"objective": "auc"},
            "--objective must be one of auto, image_auroc, pixel_aupro, combined, recall_at_fpr, worst_defect, "
            "got 'auc'.",
        ),
        ({"store_dtype": "float64"}, "--store-dtype must be float32, float16 or bfloat16, got 'float64'."),
        ({"head_precision": "int8"}, "--head-precision must be float32 or tf32, got 'int8'."),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_rule_of_a_training_is_one_line(changes: dict[str, Any], line: str) -> None:
    for make in (TrainSpec, TrainSpec().replace):
        with pytest.raises(UserError) as error:
            make(**changes)
        assert str(error.value) == line


@pytest.mark.parametrize(
    ("changes", "fragments"),
    [
        ({"study": "a/b"}, ("--study must be letters, digits", "got 'a/b'")),
        ({"study": ""}, ("--study", "got ''")),
        ({"study": ".hidden"}, ("--study", "got '.hidden'")),
        ({"study": "a" * 101}, ("--study", "at most 100")),
        ({"study": "new\nline"}, ("--study", r"got 'new\nline'")),
        ({"study": "ends\n"}, ("--study", r"got 'ends\n'")),
        ({"trials": 0}, ("--trials must be 1 to 100000, got 0.",)),
        ({"sampler": "nsga"}, ("--sampler must be one of tpe, gp, cmaes, random, grid, got 'nsga'.",)),
        ({"scheduler": "pbt"}, ("--scheduler must be one of asha, hyperband, median, none, got 'pbt'.",)),
        ({"patience": 0}, ("--patience must be at least 1, got 0.",)),
        ({"patience": -3}, ("--patience must be at least 1, got -3.",)),
        ({"finalists": 0}, ("--finalists must be at least 1, got 0.",)),
        ({"seeds": 1}, ("--seeds must be at least 2: one tells nothing of the noise, got 1.",)),
        ({"holdout": 0.0}, ("--holdout must lie between 0 and 1, both excluded, got 0.0. the usual value is 0.5.",)),
        ({"holdout": NAN}, ("--holdout must lie between 0 and 1, both excluded, got nan.",)),
        ({"validation": "real"}, ("--validation must be one of labelled, synthetic, got 'real'.",)),
        ({"protocol": "open"}, ("--protocol must be one of sealed, paper, got 'open'.",)),
        (
            {"protocol": "paper", "validation": "synthetic"},
            ("--protocol paper chooses by labeled test images, got --validation synthetic. leave one of them out.",),
        ),
        (
            {"leakage_gap": True, "validation": "synthetic"},
            ("--leakage-gap chooses by labeled test images, got --validation synthetic. leave one of them out.",),
        ),
        (
            {"leakage_gap": True, "protocol": "paper"},
            ("--leakage-gap compares with --protocol paper on the same trials, got both. leave --protocol out.",),
        ),
        ({"store_limit_gb": -1.0}, ("--store-limit-gb must be at least 0, got -1.0.",)),
        ({"gpus_per_trial": -0.5}, ("--gpus-per-trial must be at least 0, got -0.5.",)),
        ({"gpus_per_trial": NAN}, ("--gpus-per-trial must be at least 0, got nan.",)),
        ({"cpus_per_trial": 0.0}, ("--cpus-per-trial must be above 0, got 0.0.",)),
        ({"max_concurrent": 0}, ("--max-concurrent must be at least 1, got 0.",)),
        ({"time_budget_s": 0.0}, ("--time-budget must be above 0 seconds, got 0.0.",)),
        ({"time_budget_s": -5.0}, ("--time-budget must be above 0 seconds, got -5.0.",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_each_rule_of_a_study_is_one_line(changes: dict[str, Any], fragments: tuple[str, ...]) -> None:
    with pytest.raises(UserError) as error:
        StudySpec(**(STUDY | changes))
    assert all(fragment in str(error.value) for fragment in fragments)
    assert "\n" not in str(error.value)


def test_what_a_study_accepts() -> None:
    spec = StudySpec(**STUDY, gpus_per_trial=0, cpus_per_trial=0.5, max_concurrent=1, time_budget_s=0.1, trials=1)
    assert spec.folder == Path("/results/first")
    for name in ("a", "A-1_b.2", "0" * 100):
        assert StudySpec(**(STUDY | {"study": name})).study == name


def test_studies_of_one_run_share_a_folder() -> None:
    spec = StudySpec(**(STUDY | {"study": "night-part", "run": "night"}))
    assert (spec.folder, spec.run_folder) == (Path("/results/night-part"), Path("/results/night"))
    assert StudySpec(**STUDY).run_folder == Path("/results/first"), "alone, it is the study's own"


def test_only_the_papers_protocol_selects_by_the_test() -> None:
    assert StudySpec(**STUDY, protocol="paper").is_test_selected
    for fields in ({}, {"validation": "synthetic"}, {"leakage_gap": True}):
        assert not StudySpec(**STUDY, **fields).is_test_selected


@pytest.mark.parametrize("name", ["data_root", "textures", "results"])
def test_relative_paths_are_our_own_mistake(name: str) -> None:
    with pytest.raises(AssertionError, match=name):
        StudySpec(**(STUDY | {name: Path("here")}))


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        TrainSpec().alpha = 0.1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        StudySpec(**STUDY).trials = 1  # type: ignore[misc]


def test_replace_keeps_the_rest() -> None:
    spec = TrainSpec(seed=3).replace(alpha=0.1, epochs=2)
    assert spec == TrainSpec(seed=3, alpha=0.1, epochs=2)


def test_replace_lists_what_is_known() -> None:
    with pytest.raises(UserError) as error:
        TrainSpec().replace(alhpa=0.1, zeta=1)
    assert str(error.value) == (
        f"Every hyperparameter must be known, got alhpa, zeta. known: {', '.join(tunable_names())}."
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
        (UserError("A must hold"), "A must hold."),
        (UserError("A must hold", 0), "A must hold, got 0."),
        (UserError("A must hold", "x", "Do this"), "A must hold, got x. Do this."),
        (UserError("A must hold", do="Do this"), "A must hold. Do this."),
    ],
)
def test_an_error_is_rule_value_and_what_to_do(error: UserError, line: str) -> None:
    assert str(error) == line
    assert isinstance(error, ValueError)


def test_kinds_of_errors_are_user_errors() -> None:
    assert issubclass(DataError, UserError) and issubclass(SpaceError, UserError)


def test_a_category_of_any_name_has_a_model() -> None:
    assert [model_name(name) for name in ("metal_plate", "a:b/c", "tür 1 #?")] == [
        "las-metal_plate", "las-a-b-c", "las-tür 1 --",
    ]  # fmt: skip
