"""The journal, and the names of system metrics."""

from __future__ import annotations

import os
import re
import socket
import time
from contextlib import closing
from pathlib import Path

import pytest

from las_tune.errors import UserError
from las_tune.tracking.journal import Journal, JournalIndex, Write, merge, require_idle


def test_merge_keeps_the_order_of_writes() -> None:
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


def test_sent_writes_are_not_sent_again(tmp_path: Path) -> None:
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


def test_a_journal_is_locked_while_it_is_open(tmp_path: Path) -> None:
    journal = Journal(tmp_path, {"tracking_uri": "sqlite:///a", "experiment": "mine"})
    driver = re.escape(f"(driver pid {os.getpid()} on host {socket.gethostname()})")
    with pytest.raises(UserError, match=f"Study {tmp_path.name} is already running {driver}"):
        Journal(tmp_path)
    with pytest.raises(UserError, match=driver):
        require_idle(tmp_path)
    journal.close()
    require_idle(tmp_path)
    assert Journal(tmp_path).header == {**journal.header, "tracking_uri": "sqlite:///a", "experiment": "mine"}


def test_a_lock_of_version_0_1_0_names_no_driver(tmp_path: Path) -> None:
    with closing(Journal(tmp_path)):
        (tmp_path / "ledger.jsonl.owner").unlink()
        with pytest.raises(UserError, match=r"is already running\. Wait"):
            Journal(tmp_path)


def test_a_journal_accepts_only_the_store_of_its_study(tmp_path: Path) -> None:
    with closing(Journal(tmp_path, {"tracking_uri": "http://***@host"})) as journal:
        assert journal.resolve_store("http://me:secret@host") == "http://me:secret@host"
        assert journal.resolve_store("") == "http://***@host"
        with pytest.raises(UserError, match="http://other is not the store of study"):
            journal.resolve_store("http://other")


def test_the_index_knows_what_earlier_drivers_wrote() -> None:
    writes = [
        Write("study", "my study", 5),
        Write("0", "trial 0", 6),
        Write("0", metrics=[["loss", 0.5, 1, 8], ["loss", 0.25, 2, 9]]),
        Write("0", metrics=[["best/loss", 0.25, 0, 9]], end="KILLED", end_ms=10),
        Write("0", end="RUNNING"),
        Write("study", metrics=[["test_openings", 1, 0, 11]], end="FINISHED", end_ms=12),
        Write("1", "trial 1", 6, model={"holder": ""}),
    ]
    index = JournalIndex.from_writes(writes)
    assert index.num_epochs == {"study": 0, "0": 2, "1": 0}
    assert index.ended == {"study": "FINISHED"} and index.has_champion
    assert not index.add_epoch("0", 2) and index.add_epoch("0", 3) and not index.add_epoch("0", 3)
    assert index.add_final("study", {"test_openings": 1, "seconds": 2}) == {"seconds": 2}
    extended = JournalIndex.from_writes([*writes, Write("study", tags={"extended": "to 9 trials"})])
    assert not extended.has_champion
    assert extended.add_final("study", {"test_openings": 1}) and not extended.add_final("0", {"best/loss": 1})


def test_an_incomplete_last_line_is_cut_off(tmp_path: Path) -> None:
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


def test_appending_is_fast(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    started = time.perf_counter()
    for number in range(1000):
        journal.append(Write(str(number), metrics=[[f"m{i}", 0.5, 1, 2] for i in range(15)]))
    assert time.perf_counter() - started < 2


def test_system_metrics_have_the_names_of_mlflow() -> None:
    from las_tune.tracking.system_metrics import SystemMetrics

    system_metrics = SystemMetrics()
    means = system_metrics.take()
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= means.keys()
    assert all(name.startswith("system/") for name in means)
    assert system_metrics.take().keys() == means.keys(), "each call takes a sample"
