"""What Optuna knows of a study, in a file of its folder that `optuna-dashboard` opens as well."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from las_tune.config import paths
from las_tune.config.trial_record import Status

STATUS: dict[TrialState, Status] = {
    TrialState.COMPLETE: "completed",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


def open_storage(folder: Path) -> JournalStorage:
    """Of the study in a folder."""
    return JournalStorage(JournalFileBackend(str(folder / paths.OPTUNA)))


def optuna_account(folder: Path, study: str) -> dict[int, Status]:
    """What Optuna knows of the trials of a study that were begun, by number; nothing where it has no journal."""
    if not (folder / paths.OPTUNA).is_file():
        return {}
    try:
        known = optuna.load_study(study_name=study, storage=open_storage(folder)).get_trials(deepcopy=False)
    except KeyError:  # it was killed before its first line
        return {}
    return {trial.number: STATUS.get(trial.state, "running") for trial in known if trial.state != TrialState.WAITING}


def end_in_optuna(folder: Path, study: str, numbers: Sequence[int]) -> None:
    """Tell Optuna that trials which it takes for running have failed."""
    known = optuna.load_study(study_name=study, storage=open_storage(folder))
    for number in numbers:
        known.tell(number, state=TrialState.FAIL)
