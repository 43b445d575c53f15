"""One configuration for all categories: cases by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.selection.finalists import BASELINE, Finalist
from las_tune.space.knobs import Range
from las_tune.space.search_space import Space
from las_tune.study.searched import Searched
from las_tune.study.shared_configuration import best_shared_configuration
from tests.parts import make_trial

SPACE = Space("one", {"alpha": Range(0.0, 0.5)}, sources=())
HERE = Path("/nowhere")


def made_up(means: dict[str, float]) -> dict[str, Finalist]:
    """Trained with two seeds, around a mean objective each."""
    return {
        name: Finalist(name, [make_trial(20, [0.1, mean + off], finalist=name) for off in (0.01, -0.01)], [])
        for name, mean in means.items()
    }


def searched(best: int, finalists: dict[str, float], borrowed: dict[str, float]) -> Searched:
    """A study whose best trial has this number; means by name of its finalists and of other categories' best."""
    spec = StudySpec(category="?", study="s", train=TrainSpec(), data_root=HERE, textures=HERE, results=HERE)
    trials = [make_trial(0, [0.99], status="completed")]
    trials += [make_trial(number, [0.9 if number == best else 0.8], status="completed") for number in (3, 4, 5) if best]
    return Searched(spec, SPACE, trials, [], made_up(finalists), made_up(borrowed))


def test_the_best_on_average_wins_and_each_category_hears_its_regret() -> None:
    shared = best_shared_configuration(
        {
            "bolt": searched(3, {BASELINE: 0.80, "trial 3": 0.95}, {"nut": 0.90}),
            "nut": searched(5, {BASELINE: 0.70, "trial 5": 0.92}, {"bolt": 0.85}),
        }
    )
    assert shared is not None
    assert (shared["from"], shared["params"]) == ("best of nut", make_trial(5, []).params)
    assert shared["regret"] == pytest.approx({"bolt": 0.05, "nut": 0.0})
    assert shared["mean_regret"] == pytest.approx(0.025)
    of_all = {"baseline": (0.15 + 0.22) / 2, "best of bolt": 0.07 / 2, "best of nut": 0.05 / 2}
    assert shared["mean_regret_of_all"] == pytest.approx(of_all)


def test_the_baseline_may_do_best_on_average() -> None:
    shared = best_shared_configuration(
        {
            "bolt": searched(3, {BASELINE: 0.90, "trial 3": 0.95}, {"nut": 0.50}),
            "nut": searched(5, {BASELINE: 0.90, "trial 5": 0.95}, {"bolt": 0.50}),
        }
    )
    assert shared is not None
    assert (shared["from"], shared["params"]) == (BASELINE, SPACE.baseline)
    assert shared["regret"] == pytest.approx({"bolt": 0.05, "nut": 0.05})


def test_of_equals_the_baseline_is_simpler() -> None:
    everyone = {"bolt": searched(3, {BASELINE: 0.9, "trial 3": 0.9}, {"nut": 0.9})}
    everyone["nut"] = searched(5, {BASELINE: 0.9, "trial 5": 0.9}, {"bolt": 0.9})
    shared = best_shared_configuration(everyone)
    assert shared is not None and shared["from"] == BASELINE and shared["mean_regret"] == 0


def test_who_failed_in_another_category_is_no_candidate() -> None:
    """Though it would be the best of both."""
    shared = best_shared_configuration(
        {
            "bolt": searched(3, {BASELINE: 0.70, "trial 3": 0.80}, {}),
            "nut": searched(5, {BASELINE: 0.70, "trial 5": 0.99}, {"bolt": 0.75}),
        }
    )
    assert shared is not None and shared["from"] == "best of bolt"
    assert set(shared["mean_regret_of_all"]) == {"baseline", "best of bolt"}
    assert shared["regret"] == pytest.approx({"bolt": 0.0, "nut": 0.24}), "against the best that was trained there"


def test_a_category_with_no_trial_but_the_baseline_has_no_candidate_of_its_own() -> None:
    shared = best_shared_configuration(
        {
            "bolt": searched(0, {BASELINE: 0.80}, {"nut": 0.90}),
            "nut": searched(5, {BASELINE: 0.70, "trial 5": 0.92}, {}),
        }
    )
    assert shared is not None and shared["from"] == "best of nut"
    assert set(shared["mean_regret_of_all"]) == {"baseline", "best of nut"}


def test_other_finalists_are_no_candidates_but_set_what_can_be_lost() -> None:
    """Trial 4 of one category and trial 4 of another are two sets of hyperparameters, as are two earlier champions."""
    shared = best_shared_configuration(
        {
            "bolt": searched(3, {BASELINE: 0.80, "current": 0.9, "trial 3": 0.90, "trial 4": 0.96}, {"nut": 0.91}),
            "nut": searched(5, {BASELINE: 0.70, "current": 0.9, "trial 5": 0.92, "trial 4": 0.97}, {"bolt": 0.88}),
        }
    )
    assert shared is not None and shared["from"] == "best of nut"
    assert set(shared["mean_regret_of_all"]) == {"baseline", "best of bolt", "best of nut"}
    assert shared["regret"] == pytest.approx({"bolt": 0.05, "nut": 0.05})


def test_a_category_may_be_called_anything() -> None:
    """As a finalist is called."""
    shared = best_shared_configuration(
        {
            "baseline": searched(3, {BASELINE: 0.80, "trial 3": 0.90}, {"trial 3": 0.95}),
            "trial 3": searched(5, {BASELINE: 0.70, "trial 5": 0.92}, {"baseline": 0.85}),
        }
    )
    assert shared is not None and shared["from"] == "best of trial 3"
    assert shared["regret"] == pytest.approx({"baseline": 0.0, "trial 3": 0.0})
    assert shared["mean_regret_of_all"]["baseline"] == pytest.approx((0.15 + 0.22) / 2)
