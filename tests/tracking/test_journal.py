"""The journal: what is merged, and what a system metric is called."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from las_tune.errors import UserError
from las_tune.tracking.journal import Journal, Write, merge


def test_writes_of_a_run_become_one_in_their_order() -> None:
    writes = [
        Write("study", "my study", 5, params={"trials": "2"}),
        Write("0", "trial 0", 6, params={"alpha": "0.3"}, tags={"status": "running"}),
        Write("1", "trial 1", 7),
        Write("0", metrics=[["loss", 0.5, 1, 8]]),
        Write("0", metrics=[["loss", 0.25, 2, 9]], files=[["a", "b"]]),
        Write("0", tags={"status": "completed", "late": "1"}, panel=["p", "t"], end="FINISHED", end_ms=10),
    ]
    study, first, second = merge(writes)
    assert (study, second) == (writes[0], writes[2])
    assert first == Write(
        "0", "trial 0", 6, {"alpha": "0.3"}, {"status": "completed", "late": "1"},
        [["loss", 0.5, 1, 8], ["loss", 0.25, 2, 9]], [["a", "b"]], ["p", "t"], {}, "FINISHED", 10,
    )  # fmt: skip


def test_what_was_sent_is_not_sent_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in range(5):
        journal.append(Write(str(number)))
    assert [write.run for write in journal.waiting(2)] == ["0", "1"]
    journal.mark_sent(2)
    assert journal.num_waiting == 3
    journal.close()
    again = Journal(tmp_path)
    assert [write.run for write in again.earlier] == ["0", "1", "2", "3", "4"]
    assert [write.run for write in again.waiting(10)] == ["2", "3", "4"] and again.num_waiting == 3


def test_a_journal_is_open_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"tracking_uri": "sqlite:///a", "experiment": "mine"})
    with pytest.raises(UserError, match="must not be running"):
        Journal(tmp_path)
    journal.close()
    assert Journal(tmp_path).header == {**journal.header, "tracking_uri": "sqlite:///a", "experiment": "mine"}


def test_half_a_line_is_cut_off(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(Write("0", "trial 0"))
    journal.close()
    with journal.path.open("a") as file:
        file.write('{"run": "1", "na')
    again = Journal(tmp_path)
    assert again.study_id == journal.study_id
    assert [write.run for write in again.waiting(10)] == ["0"]
    again.append(Write("2", "trial 2"))
    again.close()
    assert [write.run for write in Journal(tmp_path).waiting(10)] == ["0", "2"]


def test_noting_a_write_is_quick(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    started = time.perf_counter()
    for number in range(1000):
        journal.append(Write(str(number), metrics=[[f"m{i}", 0.5, 1, 2] for i in range(15)]))
    assert time.perf_counter() - started < 2


def test_system_metrics_have_mlflows_names() -> None:
    from las_tune.tracking.system_metrics import SystemMetrics

    measuring = SystemMetrics()
    numbers = measuring.take()
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= numbers.keys()
    assert all(name.startswith("system/") for name in numbers)
    assert measuring.take().keys() == numbers.keys(), "each call has a sample of its own"
