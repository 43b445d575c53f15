"""A study whose driver died goes on: what it was asked for is in its folder, and must be asked for again."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from las_tune.config import paths
from las_tune.config.files import write_json
from las_tune.config.study_spec import StudySpec
from las_tune.errors import UserError
from las_tune.execution.history import History
from las_tune.space.search_space import Space
from las_tune.study.outputs import require_new
from las_tune.tracking.journal import is_running

FORMAT = 1
"""Of the file; what is resumed across a change of it might mix two meanings of a name."""
MAY_CHANGE = {
    "address", "command", "cpus_per_trial", "data_digest", "data_root", "experiment", "extend", "gpus_per_trial",
    "max_concurrent", "max_failures", "model_weights", "price_per_gpu_hour", "results", "space", "store_limit_gb",
    "system_metrics", "tensorboard", "textures", "time_budget_s", "tracking_uri",
}  # fmt: skip
"""Fields of the spec that another driver may be given otherwise: they do not decide what is searched."""


def what_is_asked(spec: StudySpec, space: Space, digest: str) -> dict[str, Any]:
    """All that decides the numbers of a study, as JSON holds it; digest is that of the split."""
    asked = {name: value for name, value in asdict(spec).items() if name not in MAY_CHANGE}
    train = asked.pop("train")
    asked |= {name: value for name, value in train.items() if name != "device"}
    plain: dict[str, Any] = json.loads(json.dumps(asked | {"search space": space.fingerprint(), "split": digest}))
    return plain


def require_new_or_same(spec: StudySpec, asked: dict[str, Any]) -> dict[str, Any] | None:
    """What the file of a study that goes on holds; None where the study is new.

    Raises: UserError for a study that is finished, for one that was asked for otherwise, and for a folder that is none.
    """
    file = spec.folder / paths.STUDY
    if (spec.folder / paths.LEDGER).is_file() and is_running(spec.folder):
        raise UserError("A study must not be running", f"{spec.study}, which is", "wait for its end")
    is_finished = (spec.folder / paths.SUMMARY).exists()
    if file.is_file() and is_finished and not spec.extend:
        where = f"{spec.study}, which is finished, in {spec.results}"
        raise UserError("--study must be a new name", where, "choose another, or add trials with --extend N")
    if not file.is_file():
        require_new(spec.folder)
        require_new(spec.run_folder)
        return None
    try:
        found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        before, format_ = found["asked"], found["format"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            "A study that goes on must have its file whole", f"{file} ({error})", "choose another"
        ) from error
    if format_ != FORMAT:
        do = "finish it with the version that began it"
        raise UserError(f"A study that goes on must have a file of format {FORMAT}", f"{format_!r} in {file}", do)
    wanted = asked | {"trials": asked["trials"] - spec.extend} if is_finished else asked
    differing = [name for name in wanted if before.get(name) != wanted[name]]
    if differing:
        name = differing[0]
        raise UserError(
            f"--study {spec.study} was begun and goes on only where it is asked for as before",
            f"{name} {wanted[name]} instead of {before.get(name)}",
            "ask for the same, or choose another name",
        )
    return found


def begin(spec: StudySpec, asked: dict[str, Any], points: tuple[dict[str, Any], ...]) -> None:
    """Write the file of a new study; points are tried right after the baseline."""
    write_json(spec.folder / paths.STUDY, {"format": FORMAT, "asked": asked, "points": points})


def reopen(spec: StudySpec, asked: dict[str, Any], points: tuple[dict[str, Any], ...]) -> None:
    """Make a finished study one that is not: its summary is kept under another name.

    Killed between two steps, it goes on as it was before, or with its new trials.
    """
    History(spec.folder).extend()
    summary = spec.folder / paths.SUMMARY
    if summary.exists():
        summary.rename(summary.with_name(f"summary_{asked['trials'] - spec.extend}_trials.json"))
    begin(spec, asked, points)
