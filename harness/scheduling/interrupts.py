"""Ctrl-C, SIGTERM and a closed terminal as a count that a loop reads, not as an exception."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """While entered, each of `SIGNALS` adds one to `count` and makes `wake_fd` readable.

    A signal that is ignored (nohup, a background job of a script) stays ignored. Outside the main thread
    Python installs no handlers: there `count` stays 0 and a KeyboardInterrupt goes to the main thread.
    """

    def __init__(self, *, raise_on_second: bool = False) -> None:
        self.count = 0
        self._raise_on_second = raise_on_second
        self._previous: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        self.wake_fd, self._write_fd = os.pipe()
        os.set_blocking(self.wake_fd, False)
        os.set_blocking(self._write_fd, False)
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
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

    def drain(self) -> None:
        """Make `wake_fd` unreadable until the next signal."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wake_fd, 64):
                pass

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        with contextlib.suppress(BlockingIOError):
            os.write(self._write_fd, b"!")
        if self._raise_on_second and self.count >= 2:
            raise KeyboardInterrupt
