"""A study before anything of it is written: everything that a user can get wrong is found out here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from las_tune import places
from las_tune.data.digest import check_digest
from las_tune.study_spec import StudySpec
from las_tune.tuning.pictures import Progress, StudyPictures, load_pictures, resolve_objective
from las_tune.tuning.resume import require_new_or_same, what_is_asked
from las_tune.tuning.space import Space, load_space, space_for
from las_tune.tuning.storage import Storage
from las_tune.tuning.warm_start import require_known


@dataclass(frozen=True)
class CheckedStudy:
    """A study that can run: nothing that a user can get wrong is wrong."""

    spec: StudySpec
    space: Space
    pictures: StudyPictures
    asked: dict[str, Any]
    """See resume.what_is_asked."""
    before: dict[str, Any] | None
    """The file of a study that goes on."""


def check_studies(specs: Sequence[StudySpec], progress: Progress) -> list[CheckedStudy]:
    """Read the pictures of the studies of a run, and check all that is asked for. Raises UserError."""
    if specs[0].data_digest:
        progress("checking the pictures' digest", 0, 1)
        check_digest(specs[0].data_digest, specs[0].data_root, [s.category for s in specs], specs[0].textures)
    return [_check(spec, progress) for spec in specs]


def _check(spec: StudySpec, progress: Progress) -> CheckedStudy:
    space = load_space(spec.space) if spec.space else space_for(spec.category)
    pictures = load_pictures(spec, progress)
    spec = replace(
        spec,
        train=resolve_objective(spec.train, pictures),
        tracking_uri=spec.tracking_uri or places.default_store(spec.results),
    )
    digest = pictures.split.as_dict()["digest"]
    Storage.of(spec)  # that it can be one
    asked = what_is_asked(spec, space, digest)
    before = require_new_or_same(spec, asked)
    require_known(spec, space, digest)
    return CheckedStudy(spec, space, pictures, asked, before)
