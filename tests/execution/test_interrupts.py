from __future__ import annotations

import signal
import threading

import pytest

from las_tune.execution.interrupts import uninterrupted


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_is_delayed_until_block_end(number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(number, interrupt)
    recorded = []
    try:
        with pytest.raises(KeyboardInterrupt), uninterrupted():
            recorded.append("history")
            signal.raise_signal(number)
            recorded.append("ledger")
        assert recorded == ["history", "ledger"] and signal.getsignal(number) is interrupt
    finally:
        signal.signal(number, before)


def test_exception_in_the_block_propagates() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(OSError, match="full"), uninterrupted():
        raise OSError("full")
    assert signal.getsignal(signal.SIGINT) is before


def test_other_threads_run_unchanged() -> None:
    done = []

    def work() -> None:
        with uninterrupted():
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done
