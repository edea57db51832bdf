"""Ctrl-C, SIGTERM and a closed terminal as arrivals that a loop reads, not as an exception."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, NamedTuple

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Arrival(NamedTuple):
    """A signal that came, and when by `time.monotonic`."""

    number: int
    time_s: float


class Interrupts:
    """While entered, each of `signals` is added to `arrivals` and makes `wake_fd` readable.

    A signal that is ignored (nohup, a background job of a script) stays ignored. Outside the main thread
    Python installs no handlers: there nothing arrives and a KeyboardInterrupt goes to the main thread.
    """

    def __init__(self, *, raise_on_second: bool = False, signals: Sequence[signal.Signals] = SIGNALS) -> None:
        self.arrivals: list[Arrival] = []
        self._signals = signals
        self._raise_on_second = raise_on_second
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self.wake_fd, self._write_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._write_fd, False)
        if threading.current_thread() is threading.main_thread():
            for number in self._signals:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        os.close(self.wake_fd)
        os.close(self._write_fd)

    @property
    def count(self) -> int:
        """How many signals have arrived."""
        return len(self.arrivals)

    def drain(self) -> None:
        """Make `wake_fd` unreadable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_fd, 64):
                pass

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.arrivals.append(Arrival(number, time.monotonic()))
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"!")
        if self._raise_on_second and self.count >= 2:
            raise KeyboardInterrupt
