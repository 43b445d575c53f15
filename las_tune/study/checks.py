"""All checks of user input, made before a study writes anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from las_tune.config import Progress, StudySpec, paths
from las_tune.data import StudyImages, check_digest, load_images, resolve_objective
from las_tune.execution import CheckpointStorage
from las_tune.search import check_warm_start_names
from las_tune.space import Space, load_space, space_for
from las_tune.study.resume import StudyFile, find_earlier, study_settings


@dataclass(frozen=True)
class PreparedStudy:
    """A study with valid settings, its images and its search space."""

    spec: StudySpec
    """With the objective and the MLflow store resolved."""
    space: Space
    images: StudyImages
    settings: dict[str, Any]
    """See resume.study_settings."""
    earlier: StudyFile | None
    """File of the study that is resumed or extended; None for a new study."""

    @property
    def digest(self) -> str:
        """Digest of the split."""
        return str(self.images.split.as_dict()["digest"])


def prepare_studies(specs: Sequence[StudySpec], progress: Progress) -> list[PreparedStudy]:
    """Read the images of the studies of a run and check all settings. Raises UserError."""
    first = specs[0]
    if first.data_digest:
        progress("checking the digest of the images", 0, 1)
        check_digest(first.data_digest, first.data_root, [spec.category for spec in specs], first.textures)
    return [_prepare(spec, progress) for spec in specs]


def _prepare(spec: StudySpec, progress: Progress) -> PreparedStudy:
    space = load_space(spec.space) if spec.space else space_for(spec.category)
    images = load_images(spec, progress)
    spec = replace(
        spec,
        train=resolve_objective(spec.train, images),
        tracking_uri=spec.tracking_uri or paths.default_store(spec.results),
    )
    digest = images.split.as_dict()["digest"]
    CheckpointStorage.of(spec)  # raises a UserError for an invalid --storage
    settings = study_settings(spec, space, digest)
    earlier = find_earlier(spec, settings)
    check_warm_start_names(spec, space, digest)
    return PreparedStudy(spec, space, images, settings, earlier)
