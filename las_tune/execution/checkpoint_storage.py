"""The storage of checkpoints: a folder, S3 or Google Cloud Storage that driver and workers share."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem
from ray import tune

from las_tune.config import StudySpec
from las_tune.errors import UserError, short_message
from las_tune.las import CHECKPOINT_NAME, load_checkpoint

ROWS_NAME = "rows.json"
"""File next to a checkpoint with the metrics of every epoch up to it."""


@dataclass(frozen=True)
class StoredCheckpoint:
    """A checkpoint: its path relative to the storage's root, and the metrics of the epochs up to it."""

    path: str
    rows: list[dict[str, float]]


@dataclass(frozen=True)
class CheckpointStorage:
    """The checkpoints of one run."""

    filesystem: Any
    """A pyarrow file system."""
    root: str
    """The run's folder in the file system."""

    @classmethod
    def of(cls, spec: StudySpec) -> CheckpointStorage:
        """Return the run's folder in --storage, or in --results by default."""
        if not spec.storage:
            return cls(LocalFileSystem(), str(spec.run_folder))
        try:
            filesystem, path = FileSystem.from_uri(spec.storage)
        except (ValueError, OSError) as error:  # the base classes of pyarrow's errors
            raise UserError(
                f"--storage must be a folder, s3://... or gs://..., got {spec.storage} ({short_message(error)})",
                remedy="Check the address, and the credentials that it needs",
            ) from error
        return cls(filesystem, f"{path.rstrip('/')}/{spec.run_folder.name}")

    @property
    def is_local(self) -> bool:
        """Whether the storage is a folder, on this machine or shared."""
        return isinstance(self.filesystem, LocalFileSystem)

    def checkpoint(self, path: str) -> tune.Checkpoint:
        """Return Ray's handle of the checkpoint at a relative path."""
        return tune.Checkpoint(f"{self.root}/{path}", self.filesystem)

    def relative(self, checkpoint: tune.Checkpoint) -> str:
        """Return the path of a checkpoint relative to the root."""
        return str(checkpoint.path).removeprefix(f"{self.root}/")

    def find(self, folders: Sequence[str]) -> Iterator[StoredCheckpoint]:
        """Yield the complete checkpoints of one trial, the latest first.

        Args:
            folders: the trial's checkpoint folders, relative to the root, the oldest first.
        """
        for folder in reversed(folders):
            entries = self.filesystem.get_file_info(FileSelector(f"{self.root}/{folder}", allow_not_found=True))
            names = sorted((entry.base_name for entry in entries if entry.type == FileType.Directory), reverse=True)
            for name in names:
                if name.startswith("checkpoint_") and (rows := self._read_complete(f"{folder}/{name}")):
                    yield StoredCheckpoint(f"{folder}/{name}", rows)

    def _read_complete(self, path: str) -> list[dict[str, float]]:
        """Return the rows of a checkpoint, or [] if a file is missing or incomplete."""
        try:
            with self.checkpoint(path).as_directory() as folder:
                load_checkpoint(Path(folder) / CHECKPOINT_NAME)
                return read_rows(Path(folder))
        except (UserError, OSError, ValueError):
            return []


def read_rows(folder: Path) -> list[dict[str, float]]:
    """Read the metrics next to a checkpoint in a local folder."""
    rows: list[dict[str, float]] = json.loads((folder / ROWS_NAME).read_text())
    return rows
