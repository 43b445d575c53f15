"""Warm starts: the champions of other studies, moved into the space."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.files import write_json
from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.search.warm_start import fit_point, warm_start_points
from las_tune.space.parameters import Choice, Parameter, Range
from las_tune.space.search_space import Space, known_spaces, load_space
from tests.summaries import make_summary, make_trial_summary

SPACE = Space(
    "learning_rate_and_alpha", {"adaptor_lr": Range(1e-5, 1e-3, log=True), "alpha": Range(0.1, 0.4)}, sources=()
)
CONDITIONAL = Space(
    "conditional",
    {
        "adaptor_lr": Range(1e-5, 1e-3, log=True, when={"use_adaptor": (True,)}),
        "use_adaptor": Choice((True, False)),
    },
    sources=(),
)


def finish_study(results: Path, name: str, champion: dict[str, Any], finalist: str = "trial 7", **changes: Any) -> None:
    """Write the summary and the splits of a finished study, whose best trial has an α of 0.125."""
    summary = make_summary(
        category="plates",
        best_trial=make_trial_summary(3, params={"alpha": 0.125}),
        champion=make_trial_summary(9, finalist, params=champion),
    )
    (results / name).mkdir()
    write_json(results / name / "summary.json", replace(summary, **changes).to_json())
    (results / name / "splits.json").write_text(json.dumps({"digest": "ours"}))


def points_of(
    results: Path,
    *names: str,
    champions: dict[str, dict[str, Any]] | None = None,
    space: Space = SPACE,
    category: str = "bolts",
    digest: str = "ours",
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """Return points and messages. `champions` are hyperparameters by model name, selected with the split "ours"."""
    tags = {
        name: {"hyperparameters": json.dumps(params), "digest": "ours"} for name, params in (champions or {}).items()
    }
    spec = StudySpec(
        category=category, study="new", train=TrainSpec(), data_root=results, textures=results, results=results,
        warm_start=names,
    )  # fmt: skip
    return warm_start_points(spec, space, digest, lambda name: tags.get(name, {}))


# --- sources ---


def test_finished_study_yields_its_champion(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 3e-4, "alpha": 0.25})
    assert points_of(tmp_path, "plates") == (({"adaptor_lr": 3e-4, "alpha": 0.25},), ["warm start from study plates"])


def test_category_yields_its_registered_champion(tmp_path: Path) -> None:
    points = points_of(tmp_path, "tubes", champions={"las-tubes": {"adaptor_lr": 3e-4, "alpha": 0.25}})
    assert points == (({"adaptor_lr": 3e-4, "alpha": 0.25},), ["warm start from the champion of tubes"])


def test_study_that_kept_its_baseline_yields_its_best_trial(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"alpha": 1 / 3}, finalist="baseline")
    (point,), _ = points_of(tmp_path, "plates")
    assert point["alpha"] == 0.125


def test_points_have_the_order_of_the_names(tmp_path: Path) -> None:
    for name, alpha in (("first", 0.2), ("second", 0.3)):
        finish_study(tmp_path, name, {"alpha": alpha})
    assert [point["alpha"] for point in points_of(tmp_path, "second", "first")[0]] == [0.3, 0.2]


def test_no_names_yield_no_points(tmp_path: Path) -> None:
    assert points_of(tmp_path) == ((), [])


def test_unknown_name_raises(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    for name in ("unfinished", "bolts"):
        with pytest.raises(
            UserError, match=rf"--warm-start: {name} is neither a finished study .* Check the name"
        ) as error:
            points_of(tmp_path, name)
        assert "\n" not in str(error.value)


# --- moving points into the space ---


def test_values_outside_the_space_move_to_its_nearest_end_and_are_reported(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 0.5, "alpha": 0.05, "beta_mean": 0.9})
    points, sentences = points_of(tmp_path, "plates")
    assert points == ({"adaptor_lr": 1e-3, "alpha": 0.1},), "a parameter outside the space is left out"
    assert sentences == ["warm start from study plates (moved into the space: adaptor_lr, alpha)"]


def test_missing_parameter_has_the_reference_value_and_is_not_reported_as_moved(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"alpha": 0.25})
    points, sentences = points_of(tmp_path, "plates")
    assert points == ({"adaptor_lr": TrainSpec().adaptor_lr, "alpha": 0.25},)
    assert sentences == ["warm start from study plates"]


@pytest.mark.parametrize(
    ("name", "parameter", "value", "fitted"),
    [
        ("alpha", Range(0.1, 0.4), 0.4, 0.4),
        ("alpha", Range(0.1, 0.4), 0.7, 0.4),
        ("perlin_max_exponent", Range(4, 6, integer=True), 5, 5),
        ("perlin_max_exponent", Range(4, 6, integer=True), 9, 6),
        ("perlin_max_exponent", Range(4, 6, integer=True), 0, 4),
        ("perlin_max_exponent", Range(4, 6, integer=True), 4.6, 5),
        ("foreground", Choice(("otsu", "none")), "none", "none"),
        ("foreground", Choice(("otsu",)), "none", "otsu"),
        ("use_adaptor", Choice((True, False)), False, False),
        ("use_adaptor", Choice((True,)), False, True),
        ("hidden_width", Choice((256, 1024)), 768, 1024),
        ("hidden_width", Choice((256, 1024)), 300, 256),
    ],
)
def test_fit_point_takes_the_nearest_value(name: str, parameter: Parameter, value: Any, fitted: Any) -> None:
    point = fit_point({name: value}, Space("single", {name: parameter}, sources=()))
    assert point == {name: fitted} and type(point[name]) is type(fitted)


@pytest.mark.parametrize(
    ("params", "point"),
    [
        ({"use_adaptor": True, "adaptor_lr": 3e-4}, {"use_adaptor": True, "adaptor_lr": 3e-4}),
        ({"use_adaptor": False}, {"use_adaptor": False}),
        ({"use_adaptor": False, "adaptor_lr": 3e-4}, {"use_adaptor": False}),
        ({"adaptor_lr": 3e-4}, {"use_adaptor": True, "adaptor_lr": 3e-4}),
    ],
)
def test_inactive_parameter_is_left_out(params: dict[str, Any], point: dict[str, Any]) -> None:
    assert fit_point(params, CONDITIONAL) == point


@pytest.mark.parametrize("number", [-1e9, 1e9])
@pytest.mark.parametrize("name", known_spaces())
def test_extreme_values_fit_into_every_included_space(name: str, number: float) -> None:
    space, reference = load_space(name), TrainSpec().hyperparameters()
    point = fit_point(
        {parameter: "?" if isinstance(value, str) else number for parameter, value in reference.items()}, space
    )
    assert point == space.active(point) and set(space.baseline) <= {*point, *space.parameters}
    assert all(space.parameters[parameter].contains(value) for parameter, value in point.items()), point
    TrainSpec().replace(**point)


# --- duplicates ---


def test_duplicate_configurations_are_reported_and_skipped(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 1e-4, "alpha": 1 / 3, "beta_mean": 0.25})
    finish_study(tmp_path, "bolts", {"adaptor_lr": 1e-4, "alpha": 0.25})
    finish_study(tmp_path, "nuts", {"adaptor_lr": 1e-4, "alpha": 0.25})
    points, sentences = points_of(tmp_path, "plates", "bolts", "nuts")
    assert points == ({"adaptor_lr": 1e-4, "alpha": 0.25},)
    assert sentences == [
        "warm start from study plates: already among the configurations, skipped",
        "warm start from study bolts",
        "warm start from study nuts: already among the configurations, skipped",
    ]


# --- the sealed test ---


@pytest.mark.parametrize(
    ("category", "digest", "changes"),
    [("plates", "another", {}), ("plates", "ours", {"is_test_selected": True})],
    ids=["another split", "selected on the whole test"],
)
def test_configuration_selected_on_the_sealed_test_is_rejected(
    tmp_path: Path, category: str, digest: str, changes: dict[str, Any]
) -> None:
    finish_study(tmp_path, "first", {"alpha": 0.25}, **changes)
    with pytest.raises(UserError, match=r"--warm-start: .* first were selected on images of this study's sealed test"):
        points_of(tmp_path, "first", category=category, digest=digest)
    assert len(points_of(tmp_path, "first", category="tubes", digest=digest)[0]) == 1, "another category is accepted"


def test_champion_of_the_same_category_must_have_the_same_split(tmp_path: Path) -> None:
    champions = {"las-bolts": {"alpha": 0.25}}
    assert points_of(tmp_path, "bolts", champions=champions)[0] == ({"adaptor_lr": 1e-4, "alpha": 0.25},)
    with pytest.raises(UserError, match="Use the --seed, --holdout and --validation of bolts"):
        points_of(tmp_path, "bolts", champions=champions, digest="another")


def test_unreadable_summary_raises(tmp_path: Path) -> None:
    finish_study(tmp_path, "first", {"alpha": 0.25})
    for text in ("{", "{}", "[1]"):
        (tmp_path / "first" / "summary.json").write_text(text)
        with pytest.raises(UserError, match=r"summary.json is not the summary of a study of this version: ") as error:
            points_of(tmp_path, "first")
        assert "\n" not in str(error.value)
