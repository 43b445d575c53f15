"""The MLflow runs of a study: one for each key, whatever was retried, restored or killed."""

from __future__ import annotations

from mlflow import MlflowClient

from las_tune.tracking.journal import Write

KEY_TAG = "ledger_key"
"""Tag of every run: study and trial. It is looked up before a run is made."""


class RefusedError(Exception):
    """A write that MLflow will never take."""


class Runs:
    """Finds the run of a write, or makes it."""

    def __init__(self, client: MlflowClient, experiment_id: str, study_id: str) -> None:
        self._client = client
        self._experiment_id = experiment_id
        self._study_id = study_id
        self._run_ids: dict[str, str] = {}
        self._doubtful: set[str] = set()
        """Runs that MLflow may have made without saying so."""

    def id_of(self, write: Write) -> str:
        """The run of a write: looked up by its key, and made where it is not there and the write says how."""
        if write.run not in self._run_ids:
            found = self._find(write.run)
            if found:
                self._run_ids[write.run] = found[0]
            elif write.name:
                tags = {**write.tags, KEY_TAG: self._key(write.run)}
                try:
                    made = self._client.create_run(self._experiment_id, write.start_ms, tags, write.name)
                except Exception:
                    self._doubtful.add(write.run)
                    raise
                self._run_ids[write.run] = made.info.run_id
            else:
                raise RefusedError(f"there is no run for {self._key(write.run)}")
        return self._run_ids[write.run]

    def _key(self, run: str) -> str:
        return f"{self._study_id}/{run}"

    def _find(self, run: str) -> list[str]:
        """The runs of a key, the first that was made first."""
        wanted, order = f"tags.{KEY_TAG} = '{self._key(run)}'", ["attributes.start_time ASC", "attributes.run_id ASC"]
        found = self._client.search_runs([self._experiment_id], wanted, max_results=10, order_by=order)
        return [one.info.run_id for one in found]

    def keep_one(self, run: str) -> None:
        """A server that hung may have made a run after its answer was given up: such a second one is deleted."""
        if run in self._doubtful:
            for other in self._find(run):
                if other != self._run_ids[run]:
                    self._client.delete_run(other)
            self._doubtful.discard(run)
