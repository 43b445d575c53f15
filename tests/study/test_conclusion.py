"""The champion is decided from scores and tags alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from las_tune.config.study_spec import StudySpec
from las_tune.config.train_spec import TrainSpec
from las_tune.selection.finalists import BASELINE, REGISTERED_CHAMPION, Finalist
from las_tune.selection.promotion import Scores
from las_tune.space.parameters import Range
from las_tune.space.search_space import Space
from las_tune.study.conclusion import decide
from las_tune.study.trained_study import TrainedStudy
from tests.parts import make_trial

SPACE = Space("one", {"alpha": Range(0.0, 0.5)}, sources=())
HERE = Path("/nowhere")
DEFECTS = np.repeat([0, 1], 20)


def make_scores(num_errors: int) -> Scores:
    """Make scores of two seeds that rank some defective images below all good ones."""
    image = np.tile(np.linspace(0, 1, 40), (2, 1))
    image[:, 20 : 20 + num_errors] -= 1
    return Scores(DEFECTS, image)


def make_study(*names: str, demo: bool = False) -> TrainedStudy:
    """Make a study with two retrainings of every finalist."""
    train = TrainSpec(objective="image_auroc")
    spec = StudySpec(category="a", study="s", train=train, data_root=HERE, textures=HERE, results=HERE, demo=demo)
    finalists = {
        name: Finalist(name, [make_trial(100 + seed, [0.5], finalist=name, seed=seed) for seed in (1, 2)], [])
        for name in names
    }
    trials = [make_trial(number, [0.5], status="completed") for number in range(3)]
    retrained = [record for finalist in finalists.values() for record in finalist.records]
    return TrainedStudy(spec, SPACE, trials, retrained, finalists, {})


def test_better_finalist_becomes_champion() -> None:
    study = make_study(BASELINE, "trial 2")
    choice = decide(study, {BASELINE: make_scores(12), "trial 2": make_scores(0)}, {})
    assert choice.decision.promoted and choice.alias_stays == ""
    assert choice.champion is study.finalists["trial 2"] and choice.baseline is study.finalists[BASELINE]
    assert choice.validation_gain == choice.decision.gain
    assert choice.validation_gain.mean == pytest.approx(12 / 20)


def test_baseline_stays_without_a_gain() -> None:
    study = make_study(BASELINE, "trial 2")
    choice = decide(study, {BASELINE: make_scores(4), "trial 2": make_scores(4)}, {})
    assert not choice.decision.promoted and choice.champion is choice.baseline
    assert choice.validation_gain is None
    assert set(choice.records) == {"baseline", "champion"}


def test_registered_champion_stays_without_a_gain() -> None:
    study = make_study(BASELINE, REGISTERED_CHAMPION, "trial 2")
    scores = {BASELINE: make_scores(12), REGISTERED_CHAMPION: make_scores(0), "trial 2": make_scores(1)}
    choice = decide(study, scores, {"demo": "false"})
    assert not choice.decision.promoted and choice.champion is study.finalists[REGISTERED_CHAMPION]
    assert choice.validation_gain is not None and choice.validation_gain.mean == pytest.approx(12 / 20)


def test_demo_does_not_replace_a_real_champion() -> None:
    study = make_study(BASELINE, "trial 2", demo=True)
    choice = decide(study, {BASELINE: make_scores(12), "trial 2": make_scores(0)}, {"demo": "false"})
    assert not choice.decision.promoted and choice.alias_stays
    assert choice.decision.reason.endswith(choice.alias_stays)
    assert choice.champion is study.finalists["trial 2"], "the study still delivers its own champion"
