"""The files of a run, read into memory; one that is not there is None."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException


@dataclass(frozen=True)
class Artifacts:
    """The files of one run, wherever its store keeps them."""

    client: MlflowClient
    run_id: str

    def names(self, folder: str = "") -> list[str]:
        """Paths of the files in a folder, sorted; none where it is missing or cannot be reached."""
        try:
            found = self.client.list_artifacts(self.run_id, folder or None)
        except (MlflowException, OSError):
            return []
        return sorted(file.path for file in found if not file.is_dir)

    def read(self, path: str) -> bytes | None:
        """The content of a file."""
        with tempfile.TemporaryDirectory() as folder:
            try:
                return Path(self.client.download_artifacts(self.run_id, path, folder)).read_bytes()
            except (MlflowException, OSError):
                return None

    def read_text(self, path: str) -> str | None:
        """The content of a text."""
        content = self.read(path)
        return None if content is None else content.decode(errors="replace")
