from __future__ import annotations

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.tensorboard import TensorBoard
from tests.parts import make_trial


def told(folder: Path, trial: TrialRecord) -> None:
    """What a driver tells of a trial, from its start to its end."""
    board, rows = TensorBoard(folder), trial.epochs
    trial.epochs = []
    board.trial_started(trial)
    for row in rows:
        trial.epochs.append(row)
        board.epoch_ended(trial)
    board.trial_ended(trial)


def steps(folder: Path, tag: str) -> list[int]:
    """Of a curve, in all the files of a folder."""
    found = []
    for file in folder.glob("events.out.tfevents.*"):
        content = file.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            found += [event.step for value in event.summary.value if value.tag == tag]
            content = content[16 + length :]
    return found


def test_curves_are_there_once_however_often_a_study_goes_on(tmp_path: Path) -> None:
    for _ in range(3):
        told(tmp_path, make_trial(0, [0.5, 0.6, 0.7], status="completed"))
    assert steps(tmp_path / "tensorboard/trial_0_(baseline)", "objective") == [1, 2, 3]
    assert list((tmp_path / "tensorboard/trial_0_(baseline)/hparams").glob("events.*"))


def test_finalists_of_one_name_have_folders_of_their_own(tmp_path: Path) -> None:
    for number in (100_000, 100_001):
        told(tmp_path, make_trial(number, [0.5], finalist="current", seed=1, status="completed"))
    folders = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert folders == ["100000_current,_seed_1", "100001_current,_seed_1"] or len(folders) == 2
