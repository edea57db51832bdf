"""Mirroring while runs train: a background thread of the controller that never disturbs it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection
from types import TracebackType

from harness.study.records import RunFolder
from harness.tracking.mirror import Mirror

_log = logging.getLogger(__name__)


class LiveMirror:
    """Syncs every `every_s` seconds until it is closed; `close` syncs once more.

    `folders` may name runs that have not begun; those are skipped until they have. The mirror is made in the
    thread, so that importing MLflow and creating the store delay no run. An error is logged and kept in
    `problem`; the next round tries again, and `harness sync` can always repair it later.
    """

    def __init__(
        self,
        make_mirror: Callable[[], Mirror],
        folders: Collection[RunFolder],
        every_s: float = 2.0,
    ) -> None:
        self._make_mirror = make_mirror
        self._folders = folders
        self._every_s = every_s
        self._mirror: Mirror | None = None
        self._closing = threading.Event()
        self.problem: str | None = None
        self._thread = threading.Thread(target=self._loop, name="mirror", daemon=True)
        self._thread.start()

    def close(self, timeout_s: float = 120.0) -> str | None:
        """Sync everything once more and stop the thread.

        Returns:
            None where the last sync went through, else what went wrong, in one line.
        """
        self._closing.set()
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            self.problem = f"the MLflow mirror did not finish within {timeout_s:.0f} s"
        return self.problem

    def __enter__(self) -> LiveMirror:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _loop(self) -> None:
        while not self._closing.wait(self._every_s):
            self._sync()
        self._sync()

    def _sync(self) -> None:
        try:
            if self._mirror is None:
                if not any(folder.path.exists() for folder in self._folders):
                    return  # nothing has begun: what was refused leaves no empty store behind
                self._mirror = self._make_mirror()
            self._mirror.sync(tuple(self._folders))
            self.problem = None
        except Exception as error:
            message = (str(error).splitlines() or [""])[0]
            text = f"{type(error).__name__}: {message}"
            if text != self.problem:  # once, not every two seconds
                _log.warning("the MLflow mirror is behind (%s); `harness sync` brings it up to date", text)
            self.problem = text
