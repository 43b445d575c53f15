"""Optuna's journal of a study: a file in the study's folder, which `optuna-dashboard` can open."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from las_tune.config import Status, paths

STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}
GP_LOGGER = "optuna._gp"
"""Optuna's logger that warns once, on the first use of the GP sampler, that greenlet would save milliseconds."""


@contextmanager
def quiet_optuna() -> Iterator[None]:
    """Log only Optuna's warnings inside the block, and restore its log levels afterwards."""
    verbosity, gp_logger = optuna.logging.get_verbosity(), logging.getLogger(GP_LOGGER)
    gp_level = gp_logger.level
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    gp_logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(verbosity)
        gp_logger.setLevel(gp_level)


def open_storage(folder: Path) -> JournalStorage:
    """Open the journal in the folder of a study, or create it."""
    return JournalStorage(JournalFileBackend(str(folder / paths.OPTUNA)))


def optuna_statuses(folder: Path, study_name: str) -> dict[int, Status]:
    """Return the status, by trial number, of all started trials in the journal. Empty if there is no journal."""
    if not (folder / paths.OPTUNA).is_file():
        return {}
    try:
        trials = optuna.load_study(study_name=study_name, storage=open_storage(folder)).get_trials(deepcopy=False)
    except KeyError:  # the driver was killed before it created the study in the journal
        return {}
    return {trial.number: STATUS.get(trial.state, "running") for trial in trials if trial.state != TrialState.WAITING}


def mark_failed(folder: Path, study_name: str, numbers: Sequence[int]) -> None:
    """Set running trials in the journal to FAIL, by their numbers."""
    study = optuna.load_study(study_name=study_name, storage=open_storage(folder))
    for number in numbers:
        study.tell(number, state=TrialState.FAIL)
