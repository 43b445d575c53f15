from __future__ import annotations

from pathlib import Path

from tensorboardX.proto.event_pb2 import Event

from las_tune.config.trial_record import TrialRecord
from las_tune.reporting.tensorboard import TensorBoard
from tests.parts import make_trial


def report_trial(folder: Path, trial: TrialRecord) -> None:
    """Report a trial to TensorBoard from start to end, as the driver does."""
    board, rows = TensorBoard(folder), trial.epochs
    trial.epochs = []
    board.trial_started(trial)
    for row in rows:
        trial.epochs.append(row)
        board.epoch_ended(trial)
    board.trial_ended(trial)


def read_steps(folder: Path, tag: str) -> list[int]:
    """Return the steps of a scalar in all event files of a folder."""
    steps = []
    for file in folder.glob("events.out.tfevents.*"):
        content = file.read_bytes()
        while content:  # length (8 bytes), its checksum (4), the event, its checksum (4)
            length = int.from_bytes(content[:8], "little")
            event = Event.FromString(content[12 : 12 + length])
            steps += [event.step for value in event.summary.value if value.tag == tag]
            content = content[16 + length :]
    return steps


def test_repeated_resume_writes_each_step_once(tmp_path: Path) -> None:
    for _ in range(3):
        report_trial(tmp_path, make_trial(0, [0.5, 0.6, 0.7], status="completed"))
    assert read_steps(tmp_path / "tensorboard/trial_0_(baseline)", "objective") == [1, 2, 3]
    assert list((tmp_path / "tensorboard/trial_0_(baseline)/hparams").glob("events.*"))


def test_finalists_with_equal_names_have_separate_folders(tmp_path: Path) -> None:
    for number in (100_000, 100_001):
        report_trial(tmp_path, make_trial(number, [0.5], finalist="current", seed=1, status="completed"))
    folders = sorted(path.name for path in (tmp_path / "tensorboard").iterdir())
    assert folders == ["100000_current,_seed_1", "100001_current,_seed_1"] or len(folders) == 2
