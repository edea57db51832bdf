"""What is wrong with a plugin, in words and with its place; never a traceback."""

from __future__ import annotations

import traceback
from pathlib import Path


class PluginError(ValueError):
    """A plugin cannot be used. `path` and `line` (0: not known) are the place; `message` says why."""

    def __init__(self, message: str, *, path: Path | str, line: int = 0) -> None:
        self.message, self.path, self.line = message, str(path), line
        super().__init__(f"{self.path}:{line}: {message}" if line else f"{self.path}: {message}")


def from_exception(error: BaseException, path: Path, doing: str) -> PluginError:
    """The last place in the user's own file that an exception came through, and what it says.

    `doing` is what was tried, as it stands before "failed", for example "importing it".
    """
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return PluginError(f"not valid Python: {error.msg}", path=path, line=error.lineno or 0)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno or 0 for frame in frames if frame.filename == str(path)]
    text = str(error).strip().splitlines() or [""]
    what = f"{type(error).__name__}: {text[0]}".rstrip(": ")
    return PluginError(f"{doing} failed: {what}", path=path, line=own[-1] if own else 0)
