"""Every trial is told to Optuna as what it was."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from las_tune.tuning.search import StudySearch
from las_tune.tuning.space import load_space


def make_search(folder: Path, study: str = "study", sampler: str = "tpe", seed: int = 0) -> StudySearch:
    space = load_space("default")
    return StudySearch(space, study=study, num_epochs=4, sampler=sampler, seed=seed, storage=folder / "optuna.journal")


def result(epoch: int, value: float) -> dict[str, float]:
    return {"epoch": epoch, "training_iteration": epoch, "best_objective": value}


def test_the_baseline_is_trial_0_and_has_the_seeds_values(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    params = search.suggest("a")
    assert search.number_of("a") == 0
    assert params == pytest.approx(
        {"adaptor_lr": 1e-4, "discriminator_lr": 2e-4, "alpha": 1 / 3, "beta_mean": 0.5, "beta_std": 0.1}
    )


def test_trials_end_as_what_they_were(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    for trial_id in "abcde":
        search.suggest(trial_id)
    for epoch in range(1, 5):
        search.on_trial_result("a", result(epoch, epoch / 10))
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_result("b", result(1, 0.2))
    search.on_trial_complete("b", result(1, 0.2))  # the scheduler stopped it
    search.on_trial_result("c", result(1, 0.3))
    search.on_trial_complete("c", result(1, 0.3), error=True)
    search.on_trial_complete("d", result(4, math.nan))
    search.on_trial_complete("e", None)  # no report at all
    trials = search._ot_study.trials
    assert [t.state for t in trials] == [
        TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, TrialState.FAIL, TrialState.FAIL,
    ]  # fmt: skip
    assert trials[0].value == 0.4
    assert trials[0].intermediate_values == {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    assert trials[1].value == 0.2  # Optuna takes a pruned trial's last report


def test_ending_twice_is_told_once(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.suggest("a")
    search.on_trial_complete("a", result(4, 0.4))
    search.on_trial_complete("a", result(4, 0.9))
    assert [t.value for t in search._ot_study.trials] == [0.4]


def test_the_optuna_study_has_the_studys_name_and_lies_in_its_file(tmp_path: Path) -> None:
    search = make_search(tmp_path, study="plates")
    search.suggest("a")
    storage = search._ot_study._storage
    assert [s.study_name for s in optuna.get_all_study_summaries(storage)] == ["plates"]
    assert (tmp_path / "optuna.journal").stat().st_size > 0


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_same_seed_same_proposals(tmp_path: Path, sampler: str) -> None:
    def proposals(folder: str, seed: int) -> list[dict[str, float]]:
        (tmp_path / folder).mkdir()
        search = make_search(tmp_path / folder, sampler=sampler, seed=seed)
        drawn = []
        for index in range(14):  # past TPE's ten random ones
            drawn.append(search.suggest(str(index)))
            search.on_trial_complete(str(index), result(4, drawn[-1]["alpha"]))
        return drawn[1:]

    assert proposals("a", 1) == proposals("b", 1)
    assert proposals("c", 1) != proposals("d", 2)


def test_proposals_lie_in_the_space(tmp_path: Path) -> None:
    space = load_space("metal_plate")
    search = StudySearch(space, study="s", num_epochs=4, sampler="random", seed=0, storage=tmp_path / "optuna.journal")
    for index in range(50):
        params = search.suggest(str(index))
        assert all(space.knobs[name].contains(value) for name, value in params.items())
        assert set(params) == set(space.knobs)


def test_ray_can_snapshot_the_search(tmp_path: Path) -> None:
    search = make_search(tmp_path)
    search.suggest("a")
    search.save(str(tmp_path / "snapshot"))
    copy = pickle.loads((tmp_path / "snapshot").read_bytes())
    assert copy["_ot_trials"]["a"].number == 0
