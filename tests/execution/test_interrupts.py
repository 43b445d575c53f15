from __future__ import annotations

import signal
import threading

import pytest

from las_tune.execution.interrupts import uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_block(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    told = []
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            told.append("history")
            signal.raise_signal(number)
            told.append("ledger")
        assert told == ["history", "ledger"] and signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)


def test_what_is_raised_in_the_block_is_raised() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_are_left_as_they_are() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
