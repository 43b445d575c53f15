"""What of a study is in its journal already: whatever happens, each thing is written there once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from las_tune.tracking.journal import STUDY_RUN, Write

EXTENDED = "extended"
"""Tag of a study that was given more trials."""


@dataclass
class Written:
    """Runs by their key: STUDY_RUN, or a trial's number.

    num_epochs       epochs of each run that was begun
    ended            how each run ended that is not going on
    has_handed_over  whether the champion is in MLflow, or on its way
    """

    num_epochs: dict[str, int] = field(default_factory=dict)
    ended: dict[str, str] = field(default_factory=dict)
    has_handed_over: bool = False
    _final: set[tuple[str, str]] = field(default_factory=set)

    @classmethod
    def of(cls, earlier: Iterable[Write]) -> Written:
        """What an earlier driver wrote."""
        written = cls()
        for write in earlier:
            if EXTENDED in write.tags:
                written.conclude_again()
            last = max((step for _, _, step, _ in write.metrics), default=0)
            written.num_epochs[write.run] = max(written.num_epochs.get(write.run, 0), last)
            written._final |= {(write.run, name) for name, _, step, _ in write.metrics if step == 0}
            written.has_handed_over |= bool(write.model)
            if write.end:
                written.ended[write.run] = write.end
        written.ended = {run: end for run, end in written.ended.items() if end != "RUNNING"}
        return written

    def conclude_again(self) -> None:
        """A study with more trials finds its numbers and its champion anew."""
        self.has_handed_over = False
        self._final = {(run, name) for run, name in self._final if run != STUDY_RUN}

    def is_new_epoch(self, run: str, epoch: int) -> bool:
        """Whether it was not written yet; it is now."""
        is_new = epoch > self.num_epochs[run]
        self.num_epochs[run] = max(epoch, self.num_epochs[run])
        return is_new

    def new_final(self, run: str, metrics: Mapping[str, float]) -> dict[str, float]:
        """Those final numbers that were not written yet; they are now."""
        new = {name: value for name, value in metrics.items() if (run, name) not in self._final}
        self._final |= {(run, name) for name in new}
        return new
