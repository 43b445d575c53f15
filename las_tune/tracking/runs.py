"""Find or create the MLflow runs of a study: exactly one for each key, also after retries and crashes."""

from __future__ import annotations

from mlflow import MlflowClient

from las_tune.tracking.journal import Write

KEY_TAG = "ledger_key"
"""Tag of every run with <study id>/<key>. A run is looked up by it before it is created."""
MAX_DUPLICATES = 10


class RefusedError(Exception):
    """Raised for a write that MLflow will never accept."""


class Runs:
    """The runs of one study by their keys."""

    def __init__(self, client: MlflowClient, experiment_id: str, study_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._study_id = study_id
        self._run_ids: dict[str, str] = {}
        self._unconfirmed: set[str] = set()
        """Keys of runs that MLflow may have created although the request failed."""

    def find_or_create(self, write: Write) -> str:
        """Return the id of the run of a write. The run is created if it is missing and the write has a name for it.

        Raises: RefusedError if it is missing and the write has no name.
        """
        if write.run not in self._run_ids:
            found = self._find(write.run)
            if found:
                self._run_ids[write.run] = found[0]
            elif write.name:
                self._run_ids[write.run] = self._create(write)
            else:
                raise RefusedError(f"there is no run with the key {self._key(write.run)}")
        return self._run_ids[write.run]

    def delete_duplicates(self, run: str) -> None:
        """Delete the second run that a slow server may have created after its request timed out."""
        if run in self._unconfirmed:
            for run_id in self._find(run):
                if run_id != self._run_ids[run]:
                    self._client.delete_run(run_id)
            self._unconfirmed.discard(run)

    def _create(self, write: Write) -> str:
        tags = {**write.tags, KEY_TAG: self._key(write.run)}
        try:
            created = self._client.create_run(self._experiment_id, write.start_ms, tags, write.name)
        except Exception:
            self._unconfirmed.add(write.run)
            raise
        return str(created.info.run_id)

    def _key(self, run: str) -> str:
        return f"{self._study_id}/{run}"

    def _find(self, key: str) -> list[str]:
        """Return the ids of the runs with a key, in the order of their creation."""
        query, order = f"tags.{KEY_TAG} = '{self._key(key)}'", ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self._client.search_runs([self._experiment_id], query, max_results=MAX_DUPLICATES, order_by=order)
        return [run.info.run_id for run in found]
