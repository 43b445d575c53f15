"""One configuration for all categories: cases computed by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.selection.finalists import BASELINE, Finalist
from las_tune.space.parameters import Range
from las_tune.space.search_space import Space
from las_tune.study.shared_configuration import best_shared_configuration
from las_tune.study.trained_study import TrainedStudy
from tests.parts import make_trial

SPACE = Space("one", {"alpha": Range(0.0, 0.5)}, sources=())
HERE = Path("/nowhere")


def make_finalists(means: dict[str, float]) -> dict[str, Finalist]:
    """Make finalists with two seeds each, around their mean objectives."""
    return {
        name: Finalist(name, [make_trial(20, [0.1, mean + off], finalist=name) for off in (0.01, -0.01)], [])
        for name, mean in means.items()
    }


def make_trained_study(best: int, finalists: dict[str, float], borrowed: dict[str, float]) -> TrainedStudy:
    """Make a study. Means are by name of its finalists, and by category of the best trials of other categories."""
    spec = StudySpec(category="?", study="s", train=TrainSpec(), data_root=HERE, textures=HERE, results=HERE)
    trials = [make_trial(0, [0.99], status="completed")]
    trials += [make_trial(number, [0.9 if number == best else 0.8], status="completed") for number in (3, 4, 5) if best]
    return TrainedStudy(spec, SPACE, trials, [], make_finalists(finalists), make_finalists(borrowed))


def test_best_on_average_wins_and_regret_is_by_category() -> None:
    shared = best_shared_configuration(
        {
            "bolt": make_trained_study(3, {BASELINE: 0.80, "trial 3": 0.95}, {"nut": 0.90}),
            "nut": make_trained_study(5, {BASELINE: 0.70, "trial 5": 0.92}, {"bolt": 0.85}),
        }
    )
    assert (shared.source, shared.params) == ("best of nut", make_trial(5, []).params)
    assert shared.regret == pytest.approx({"bolt": 0.05, "nut": 0.0})
    assert shared.mean_regret == pytest.approx(0.025)
    of_all = {"baseline": (0.15 + 0.22) / 2, "best of bolt": 0.07 / 2, "best of nut": 0.05 / 2}
    assert shared.mean_regret_of_all == pytest.approx(of_all)


def test_baseline_can_be_best_on_average() -> None:
    shared = best_shared_configuration(
        {
            "bolt": make_trained_study(3, {BASELINE: 0.90, "trial 3": 0.95}, {"nut": 0.50}),
            "nut": make_trained_study(5, {BASELINE: 0.90, "trial 5": 0.95}, {"bolt": 0.50}),
        }
    )
    assert (shared.source, shared.params) == (BASELINE, SPACE.baseline)
    assert shared.regret == pytest.approx({"bolt": 0.05, "nut": 0.05})


def test_baseline_wins_a_tie() -> None:
    studies = {"bolt": make_trained_study(3, {BASELINE: 0.9, "trial 3": 0.9}, {"nut": 0.9})}
    studies["nut"] = make_trained_study(5, {BASELINE: 0.9, "trial 5": 0.9}, {"bolt": 0.9})
    shared = best_shared_configuration(studies)
    assert shared.source == BASELINE and shared.mean_regret == 0


def test_configuration_that_failed_in_a_category_is_not_a_candidate() -> None:
    """The configuration is excluded although it would be best in both categories."""
    shared = best_shared_configuration(
        {
            "bolt": make_trained_study(3, {BASELINE: 0.70, "trial 3": 0.80}, {}),
            "nut": make_trained_study(5, {BASELINE: 0.70, "trial 5": 0.99}, {"bolt": 0.75}),
        }
    )
    assert shared.source == "best of bolt"
    assert set(shared.mean_regret_of_all) == {"baseline", "best of bolt"}
    assert shared.regret == pytest.approx({"bolt": 0.0, "nut": 0.24}), (
        "compared with the best configuration of the category"
    )


def test_category_with_only_a_baseline_adds_no_candidate() -> None:
    shared = best_shared_configuration(
        {
            "bolt": make_trained_study(0, {BASELINE: 0.80}, {"nut": 0.90}),
            "nut": make_trained_study(5, {BASELINE: 0.70, "trial 5": 0.92}, {}),
        }
    )
    assert shared.source == "best of nut"
    assert set(shared.mean_regret_of_all) == {"baseline", "best of nut"}


def test_other_finalists_are_not_candidates_but_count_for_the_regret() -> None:
    """Trial 4 of one category and trial 4 of another are different configurations, as are two registered champions."""
    shared = best_shared_configuration(
        {
            "bolt": make_trained_study(
                3, {BASELINE: 0.80, "current": 0.9, "trial 3": 0.90, "trial 4": 0.96}, {"nut": 0.91}
            ),
            "nut": make_trained_study(
                5, {BASELINE: 0.70, "current": 0.9, "trial 5": 0.92, "trial 4": 0.97}, {"bolt": 0.88}
            ),
        }
    )
    assert shared.source == "best of nut"
    assert set(shared.mean_regret_of_all) == {"baseline", "best of bolt", "best of nut"}
    assert shared.regret == pytest.approx({"bolt": 0.05, "nut": 0.05})


def test_category_can_have_any_name() -> None:
    """A category may have the name of a finalist."""
    shared = best_shared_configuration(
        {
            "baseline": make_trained_study(3, {BASELINE: 0.80, "trial 3": 0.90}, {"trial 3": 0.95}),
            "trial 3": make_trained_study(5, {BASELINE: 0.70, "trial 5": 0.92}, {"baseline": 0.85}),
        }
    )
    assert shared.source == "best of trial 3"
    assert shared.regret == pytest.approx({"baseline": 0.0, "trial 3": 0.0})
    assert shared.mean_regret_of_all["baseline"] == pytest.approx((0.15 + 0.22) / 2)
