"""A study before anything of it is written: everything that a user can get wrong is found out here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from las_tune.config import paths
from las_tune.config.study_spec import StudySpec
from las_tune.data.digest import check_digest
from las_tune.data.study_images import Progress, StudyImages, load_images, resolve_objective
from las_tune.execution.checkpoint_storage import Storage
from las_tune.search.warm_start import require_known
from las_tune.space.search_space import Space, load_space, space_for
from las_tune.study.resume import require_new_or_same, what_is_asked


@dataclass(frozen=True)
class CheckedStudy:
    """A study that can run: nothing that a user can get wrong is wrong."""

    spec: StudySpec
    space: Space
    images: StudyImages
    asked: dict[str, Any]
    """See resume.what_is_asked."""
    before: dict[str, Any] | None
    """The file of a study that goes on."""


def check_studies(specs: Sequence[StudySpec], progress: Progress) -> list[CheckedStudy]:
    """Read the images of the studies of a run, and check all that is asked for. Raises UserError."""
    if specs[0].data_digest:
        progress("checking the images' digest", 0, 1)
        check_digest(specs[0].data_digest, specs[0].data_root, [s.category for s in specs], specs[0].textures)
    return [_check(spec, progress) for spec in specs]


def _check(spec: StudySpec, progress: Progress) -> CheckedStudy:
    space = load_space(spec.space) if spec.space else space_for(spec.category)
    images = load_images(spec, progress)
    spec = replace(
        spec,
        train=resolve_objective(spec.train, images),
        tracking_uri=spec.tracking_uri or paths.default_store(spec.results),
    )
    digest = images.split.as_dict()["digest"]
    Storage.of(spec)  # that it can be one
    asked = what_is_asked(spec, space, digest)
    before = require_new_or_same(spec, asked)
    require_known(spec, space, digest)
    return CheckedStudy(spec, space, images, asked, before)
