"""Asking Slurm beside the watching: an answer may take ten seconds, and the display must not wait for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class Asker(Generic[Answer]):
    """One question at a time, asked in a thread; the answer waits until it is fetched."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._answers: list[Answer] = []

    @property
    def is_idle(self) -> bool:
        """Whether no question is under way and no answer waits."""
        return self._thread is None

    def ask(self, question: Callable[[], Answer]) -> None:
        """Ask; only when idle. `question` does not raise."""
        self._thread = threading.Thread(
            target=lambda: self._answers.append(question()), name="slurm", daemon=True
        )
        self._thread.start()

    def fetch(self) -> list[Answer]:
        """The answer, once; empty while there is none."""
        if self._thread is None or self._thread.is_alive():
            return []
        self._thread = None
        answers, self._answers = self._answers, []
        return answers
