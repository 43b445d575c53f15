"""What other studies found is tried first, fitted to the space, and told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.errors import UserError
from las_tune.search.warm_start import fit_point, warm_points
from las_tune.space.knobs import Choice, Knob, Range
from las_tune.space.search_space import Space, known_spaces, load_space

SPACE = Space("two", {"adaptor_lr": Range(1e-5, 1e-3, log=True), "alpha": Range(0.1, 0.4)}, sources=())
CONDITIONAL = Space(
    "conditional",
    {
        "adaptor_lr": Range(1e-5, 1e-3, log=True, when={"use_adaptor": (True,)}),
        "use_adaptor": Choice((True, False)),
    },
    sources=(),
)


def finish_study(results: Path, name: str, champion: dict[str, Any], finalist: str = "trial 7", **changes: Any) -> None:
    """Leave a summary and its splits; its best trial has an α of 0.125."""
    best = {"trial": 3, "finalist": "", "params": {"alpha": 0.125}}
    summary = {"champion": {"trial": 9, "finalist": finalist, "params": champion}, "best_trial": best}
    summary |= {"category": "plates", "test_selected": False}
    (results / name).mkdir()
    (results / name / "summary.json").write_text(json.dumps(summary | changes))
    (results / name / "splits.json").write_text(json.dumps({"digest": "ours"}))


def points_of(
    results: Path,
    *names: str,
    champions: dict[str, dict[str, Any]] | None = None,
    space: Space = SPACE,
    category: str = "bolts",
    digest: str = "ours",
) -> tuple[tuple[dict[str, Any], ...], list[str]]:
    """champions: hyperparameters by name of a registered model, chosen beside the sealed test "ours"."""
    tags = {
        name: {"hyperparameters": json.dumps(params), "digest": "ours"} for name, params in (champions or {}).items()
    }
    spec = StudySpec(
        category=category, study="new", train=TrainSpec(), data_root=results, textures=results, results=results,
        warm_start=names,
    )  # fmt: skip
    return warm_points(spec, space, digest, lambda name: tags.get(name, {}))


# --- where points come from ---


def test_a_finished_study_gives_its_champion(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 3e-4, "alpha": 0.25})
    assert points_of(tmp_path, "plates") == (({"adaptor_lr": 3e-4, "alpha": 0.25},), ["warm start from study plates"])


def test_a_category_gives_the_champion_of_its_registered_model(tmp_path: Path) -> None:
    found = points_of(tmp_path, "tubes", champions={"las-tubes": {"adaptor_lr": 3e-4, "alpha": 0.25}})
    assert found == (({"adaptor_lr": 3e-4, "alpha": 0.25},), ["warm start from the champion of tubes"])


def test_a_study_that_kept_its_baseline_gives_its_best_trial(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"alpha": 1 / 3}, finalist="baseline")
    (point,), _ = points_of(tmp_path, "plates")
    assert point["alpha"] == 0.125


def test_points_keep_the_order_of_the_names(tmp_path: Path) -> None:
    for name, alpha in (("one", 0.2), ("two", 0.3)):
        finish_study(tmp_path, name, {"alpha": alpha})
    assert [point["alpha"] for point in points_of(tmp_path, "two", "one")[0]] == [0.3, 0.2]


def test_no_names_no_points(tmp_path: Path) -> None:
    assert points_of(tmp_path) == ((), [])


def test_a_name_of_nothing_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "unfinished").mkdir()
    for name in ("unfinished", "bolts"):
        with pytest.raises(UserError, match=r"--warm-start takes finished studies .*, got") as error:
            points_of(tmp_path, name)
        assert "\n" not in str(error.value) and f"got {name}. look for its summary.json" in str(error.value)


# --- points lie in the space ---


def test_values_outside_the_space_move_to_its_nearest_end_and_are_told(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 0.5, "alpha": 0.05, "beta_mean": 0.9})
    points, sentences = points_of(tmp_path, "plates")
    assert points == ({"adaptor_lr": 1e-3, "alpha": 0.1},), "and a knob that is not searched is left out"
    assert sentences == ["warm start from study plates (moved into the space: adaptor_lr, alpha)"]


def test_a_knob_that_the_champion_lacks_has_the_seeds_value_and_is_not_told_as_moved(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"alpha": 0.25})
    points, sentences = points_of(tmp_path, "plates")
    assert points == ({"adaptor_lr": TrainSpec().adaptor_lr, "alpha": 0.25},)
    assert sentences == ["warm start from study plates"]


@pytest.mark.parametrize(
    ("name", "knob", "value", "fitted"),
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
def test_the_nearest_value_of_a_knob(name: str, knob: Knob, value: Any, fitted: Any) -> None:
    point = fit_point({name: value}, Space("one", {name: knob}, sources=()))
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
def test_a_knob_whose_condition_does_not_hold_is_left_out(params: dict[str, Any], point: dict[str, Any]) -> None:
    assert fit_point(params, CONDITIONAL) == point


@pytest.mark.parametrize("number", [-1e9, 1e9])
@pytest.mark.parametrize("name", known_spaces())
def test_whatever_was_found_elsewhere_its_point_lies_in_every_shipped_space(name: str, number: float) -> None:
    space, usual = load_space(name), TrainSpec().hyperparameters()
    point = fit_point({knob: "?" if isinstance(value, str) else number for knob, value in usual.items()}, space)
    assert point == space.active(point) and set(space.baseline) <= {*point, *space.knobs}
    assert all(space.knobs[knob].contains(value) for knob, value in point.items()), point
    TrainSpec().replace(**point)


# --- nothing twice ---


def test_what_is_tried_anyhow_is_told_and_left_out(tmp_path: Path) -> None:
    finish_study(tmp_path, "plates", {"adaptor_lr": 1e-4, "alpha": 1 / 3, "beta_mean": 0.25})
    finish_study(tmp_path, "bolts", {"adaptor_lr": 1e-4, "alpha": 0.25})
    finish_study(tmp_path, "nuts", {"adaptor_lr": 1e-4, "alpha": 0.25})
    points, sentences = points_of(tmp_path, "plates", "bolts", "nuts")
    assert points == ({"adaptor_lr": 1e-4, "alpha": 0.25},)
    assert sentences == [
        "warm start from study plates: nothing new, its point is there already",
        "warm start from study bolts",
        "warm start from study nuts: nothing new, its point is there already",
    ]


# --- nothing that the sealed test chose ---


@pytest.mark.parametrize(
    ("category", "digest", "changes"),
    [("plates", "another", {}), ("plates", "ours", {"test_selected": True})],
    ids=["another split", "chosen by the whole test"],
)
def test_what_was_chosen_by_images_of_this_sealed_test_is_refused(
    tmp_path: Path, category: str, digest: str, changes: dict[str, Any]
) -> None:
    finish_study(tmp_path, "one", {"alpha": 0.25}, **changes)
    with pytest.raises(UserError, match=r"--warm-start must not take what was chosen by images of this sealed test"):
        points_of(tmp_path, "one", category=category, digest=digest)
    assert len(points_of(tmp_path, "one", category="tubes", digest=digest)[0]) == 1, "other parts are no images of it"


def test_the_champion_of_the_same_category_is_taken_from_the_same_split_only(tmp_path: Path) -> None:
    champions = {"las-bolts": {"alpha": 0.25}}
    assert points_of(tmp_path, "bolts", champions=champions)[0] == ({"adaptor_lr": 1e-4, "alpha": 0.25},)
    with pytest.raises(UserError, match="use its --seed, --holdout and --validation"):
        points_of(tmp_path, "bolts", champions=champions, digest="another")


def test_a_summary_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    finish_study(tmp_path, "one", {"alpha": 0.25})
    for text in ("{", "{}", "[1]"):
        (tmp_path / "one" / "summary.json").write_text(text)
        with pytest.raises(UserError, match=r"--warm-start takes studies of this version, got") as error:
            points_of(tmp_path, "one")
        assert "\n" not in str(error.value)
