"""The result of a run: its studies, and one configuration for all of them. It is stored in `overview.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from las_tune.reporting.summary import Summary


@dataclass(frozen=True)
class FailedStudy:
    """A study of a run that ended with an error, while the others continued."""

    study: str
    category: str
    reason: str

    def to_json(self) -> dict[str, str]:
        """Return the JSON object, with the reason under the key `failed`."""
        return {"study": self.study, "category": self.category, "failed": self.reason}

    @classmethod
    def from_json(cls, content: Mapping[str, str]) -> FailedStudy:
        """Restore the object from the output of `to_json`."""
        return cls(content["study"], content["category"], content["failed"])


@dataclass(frozen=True)
class SharedConfiguration:
    """The hyperparameters with the smallest mean regret over all categories of a run.

    The regret of a category is the objective that it loses on its validation images (mean over seeds), compared with
    the best configuration that was trained on it.
    """

    source: str
    """Where the hyperparameters come from: baseline, or best of a category."""
    params: dict[str, Any]
    mean_regret: float
    regret: dict[str, float]
    """By category."""
    mean_regret_of_all: dict[str, float]
    """Mean regret of every configuration that was compared, by source."""

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object, with the source under the key `from`."""
        return {
            "from": self.source,
            "params": self.params,
            "mean_regret": self.mean_regret,
            "regret": self.regret,
            "mean_regret_of_all": self.mean_regret_of_all,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> SharedConfiguration:
        """Restore the object from the output of `to_json`."""
        return cls(source=content["from"], **{name: value for name, value in content.items() if name != "from"})


@dataclass(frozen=True)
class RunSummary:
    """All studies of a run, in the order of their categories."""

    studies: tuple[Summary | FailedStudy, ...]
    shared_configuration: SharedConfiguration | None = None
    """None for a single study, and if the objectives differ."""

    @property
    def finished(self) -> list[Summary]:
        """Studies that did not fail."""
        return [study for study in self.studies if isinstance(study, Summary)]

    @property
    def failed(self) -> list[FailedStudy]:
        """Studies that failed."""
        return [study for study in self.studies if isinstance(study, FailedStudy)]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `overview.json`."""
        shared = self.shared_configuration
        return {
            "studies": [study.to_json() for study in self.studies],
            "shared_configuration": shared.to_json() if shared else None,
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> RunSummary:
        """Restore the object from the output of `to_json`."""
        studies = (
            FailedStudy.from_json(study) if "failed" in study else Summary.from_json(study)
            for study in content["studies"]
        )
        shared = content["shared_configuration"]
        return cls(tuple(studies), SharedConfiguration.from_json(shared) if shared else None)
