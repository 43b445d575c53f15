"""Where checkpoints lie: a folder, S3 or Google's storage, seen alike from the driver and from every worker."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from ray import tune

from las_tune.config.study_spec import StudySpec
from las_tune.errors import UserError, said
from las_tune.las.checkpoint import CHECKPOINT_NAME, load_checkpoint

ROWS_NAME = "rows.json"
"""Beside a checkpoint: the numbers of every epoch up to it."""


@dataclass(frozen=True)
class Found:
    """A checkpoint: where, relative to the storage's root, and the numbers of the epochs up to it."""

    path: str
    rows: list[dict[str, float]]


@dataclass(frozen=True)
class Storage:
    """A place for checkpoints."""

    filesystem: Any
    """Of pyarrow."""
    root: str
    """Folder of the run in it."""

    @classmethod
    def of(cls, spec: StudySpec) -> Storage:
        """The run's own folder in --storage, or in the results where none is given."""
        if not spec.storage:
            return cls(LocalFileSystem(), str(spec.run_folder))
        try:
            filesystem, path = FileSystem.from_uri(spec.storage)
        except (ValueError, OSError) as error:  # pyarrow's own errors are of these kinds
            raise UserError(
                "--storage must be a folder, s3://... or gs://...", f"{spec.storage} ({said(error)})"
            ) from error
        return cls(filesystem, f"{path.rstrip('/')}/{spec.run_folder.name}")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder, of this machine or shared."""
        return isinstance(self.filesystem, LocalFileSystem)

    def checkpoint(self, path: str) -> tune.Checkpoint:
        """Ray's handle of a checkpoint."""
        return tune.Checkpoint(f"{self.root}/{path}", self.filesystem)

    def relative(self, checkpoint: tune.Checkpoint) -> str:
        """Where a checkpoint lies, relative to the root."""
        return str(checkpoint.path).removeprefix(f"{self.root}/")

    def find(self, folders: Sequence[str]) -> Iterator[Found]:
        """The checkpoints in the folders of one trial, oldest folder first, that are whole; the latest first."""
        for folder in reversed(folders):
            inside = self.filesystem.get_file_info(FileSelector(f"{self.root}/{folder}", allow_not_found=True))
            names = sorted((info.base_name for info in inside if info.type == FileType.Directory), reverse=True)
            for name in names:
                if name.startswith("checkpoint_") and (rows := self._read_whole(f"{folder}/{name}")):
                    yield Found(f"{folder}/{name}", rows)

    def _read_whole(self, path: str) -> list[dict[str, float]]:
        """The rows of a checkpoint; none where a part of it is missing or was only half written."""
        try:
            with self.checkpoint(path).as_directory() as folder:
                load_checkpoint(Path(folder) / CHECKPOINT_NAME)
                return rows_in(Path(folder))
        except (UserError, OSError, ValueError):
            return []


def rows_in(folder: Path) -> list[dict[str, float]]:
    """The rows beside a checkpoint in a folder of this machine."""
    rows: list[dict[str, float]] = json.loads((folder / ROWS_NAME).read_text())
    return rows
