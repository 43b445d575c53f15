"""`study.json`: the settings of a study, with which a later driver resumes or extends it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from las_tune.config import StudySpec, paths, write_json
from las_tune.errors import UserError, type_and_message
from las_tune.execution import History
from las_tune.space import Space
from las_tune.study.outputs import require_new_folder
from las_tune.tracking import require_idle

FORMAT = 1
"""Version of the file's format. A study of another format cannot be resumed."""
MAY_CHANGE = {
    "address", "command", "cpus_per_trial", "data_digest", "data_root", "experiment", "extend", "gpus_per_trial",
    "max_concurrent", "max_failures", "model_weights", "price_per_gpu_hour", "results", "space", "store_limit_gb",
    "system_metrics", "tensorboard", "textures", "time_budget_s", "tracking_uri",
}  # fmt: skip
"""Fields of StudySpec that may differ when a study is resumed, because they do not affect its numbers."""
NOT_FLAGS = {
    "search space": "The search space of study {study} has changed",
    "split": "The images of study {study} are split differently than before",
}
"""Settings that are digests, with the error message if they change."""

Points = tuple[dict[str, Any], ...]
"""Configurations that are evaluated right after the baseline."""


@dataclass(frozen=True)
class StudyFile:
    """Content of `study.json`."""

    settings: dict[str, Any]
    """See study_settings."""
    points: Points

    def write(self, spec: StudySpec) -> None:
        """Write the file into the folder of a study."""
        content = {"format": FORMAT, "asked": self.settings, "points": self.points}
        write_json(spec.folder / paths.STUDY, content)

    @classmethod
    def read(cls, spec: StudySpec) -> StudyFile:
        """Read the file of a study. Raises UserError if it is damaged, or of another format."""
        file = spec.folder / paths.STUDY
        try:
            content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
            settings, found_format = content["asked"], content["format"]
        except (OSError, ValueError, KeyError) as error:
            problem = f"Study {spec.study} cannot be resumed, because {file} is damaged ({type_and_message(error)})"
            raise UserError(problem, remedy="Start a new --study") from error
        if found_format != FORMAT:
            problem = f"{file} has format {found_format!r}, and this version reads format {FORMAT}"
            raise UserError(problem, remedy="Finish the study with the version that started it")
        return cls(settings, tuple(content.get("points", ())))


def study_settings(spec: StudySpec, space: Space, digest: str) -> dict[str, Any]:
    """Return all settings that affect the numbers of a study, as JSON values.

    Args:
        spec: settings of the study.
        space: search space of the study.
        digest: digest of its split.
    """
    settings = {name: value for name, value in asdict(spec).items() if name not in MAY_CHANGE}
    train = settings.pop("train")
    settings |= {name: value for name, value in train.items() if name != "device"}
    settings |= {"search space": space.fingerprint(), "split": digest}
    plain: dict[str, Any] = json.loads(json.dumps(settings))
    return plain


def find_earlier(spec: StudySpec, settings: dict[str, Any]) -> StudyFile | None:
    """Return the file of the study that is resumed or extended; None if the study is new.

    Raises: UserError for a study that is running or finished, for different settings, and for a damaged file.
    """
    require_idle(spec.folder)
    file = spec.folder / paths.STUDY
    is_finished = (spec.folder / paths.SUMMARY).exists()
    if file.is_file() and is_finished and not spec.extend:
        problem = f"Study {spec.study} in {spec.results} is already finished"
        raise UserError(problem, remedy="Choose another --study, or add trials with --extend N")
    if not file.is_file():
        require_new_folder(spec.folder)
        require_new_folder(spec.run_folder)
        return None
    earlier = StudyFile.read(spec)
    expected = settings | {"trials": settings["trials"] - spec.extend} if is_finished else settings
    _require_same(spec.study, expected, earlier.settings)
    return earlier


def _require_same(study: str, settings: dict[str, Any], earlier: dict[str, Any]) -> None:
    """Raise a UserError for the first setting that differs."""
    name = next((name for name in settings if earlier.get(name) != settings[name]), None)
    if name is None:
        return
    if name in NOT_FLAGS:
        raise UserError(NOT_FLAGS[name].format(study=study), remedy="Restore it, or start a new --study")
    problem = (
        f"Study {study} can only be resumed with its original settings: {name} is {settings[name]}, "
        f"was {earlier.get(name)}"
    )
    raise UserError(problem, remedy="Use the original value, or start a new --study")


def reopen(spec: StudySpec, settings: dict[str, Any], points: Points) -> None:
    """Turn a finished study into an unfinished one with more trials. Its summary is kept under another name.

    The order matters: a driver that is killed in between leaves a study that resumes as before, or with the new trials.
    """
    History(spec.folder).extend()
    summary = spec.folder / paths.SUMMARY
    if summary.exists():
        summary.rename(summary.with_name(f"summary_{settings['trials'] - spec.extend}_trials.json"))
    StudyFile(settings, points).write(spec)
