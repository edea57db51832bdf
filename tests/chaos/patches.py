"""Puts an injector between Python and the system's calls that write."""

from __future__ import annotations

import builtins
import importlib.abc
import importlib.util
import io
import os
import re
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import partialmethod
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from harness.spec import Machine
from tests.chaos.injector import Injector

ON_ONE_PATH = ("unlink", "remove", "rmdir", "mkdir", "truncate", "utime")
ON_A_DESTINATION = ("replace", "rename", "link")
ON_A_DESCRIPTOR = ("fsync", "fdatasync", "ftruncate")
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
CHANGING_SQL = re.compile(r"\s*(INSERT|UPDATE|DELETE|CREATE|ALTER|COMMIT)", re.IGNORECASE)


def install(injector: Injector) -> None:
    """From now on every write of this process below the watched folder goes through the injector."""
    every_s = injector.checkpoint_every_s
    Machine.__init__ = partialmethod(Machine.__init__, checkpoint_every_s=every_s)  # type: ignore[method-assign]
    for name in ON_ONE_PATH:
        setattr(os, name, _on_path(injector, name, 0))
    for name in ON_A_DESTINATION:
        setattr(os, name, _on_path(injector, name, 1))
    for name in ON_A_DESCRIPTOR:
        setattr(os, name, _on_path(injector, name, 0))
    _patch_files(injector)
    _patch_descriptors(injector)
    _patch_sqlite(injector)
    sys.meta_path.insert(0, _Steps(injector))


def _on_path(injector: Injector, name: str, position: int) -> Callable[..., Any]:
    real = getattr(os, name)
    op = {"remove": "unlink", "rename": "replace"}.get(name, name)

    def patched(*args: Any, **options: Any) -> Any:
        inside = any(value is not None for key, value in options.items() if key.endswith("dir_fd"))
        path = None if inside or len(args) <= position else injector.watched(args[position])
        if path is None:
            return real(*args, **options)
        return injector.around(op, path, lambda: real(*args, **options))

    return patched


def _patch_files(injector: Injector) -> None:
    real = io.open

    class Watched(io.FileIO):
        """The system's side of an open file: each `write` here is one call of the system."""

        path: str

        def write(self, data: Any) -> int:
            def part(share: float) -> tuple[int, int]:
                view = memoryview(data).cast("B")
                return super(Watched, self).write(view[: int(len(view) * share)]), len(view)

            return injector.around("write", self.path, lambda: super(Watched, self).write(data), part)

        def truncate(self, size: int | None = None) -> int:
            return injector.around("truncate", self.path, lambda: super(Watched, self).truncate(size))

    def patched(
        file: Any, mode: str = "r", buffering: int = -1, *text: Any, closefd: bool = True, **rest: Any
    ) -> Any:
        path = injector.watched(file) if set(mode) & set("wax+") else None
        if path is None:
            return real(file, mode, buffering, *text, closefd=closefd, **rest)
        flags = mode.replace("b", "").replace("t", "")
        opener = rest.pop("opener", None)
        raw = injector.around("open", path, lambda: Watched(file, flags, closefd, opener))
        raw.path = path
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return buffered
        return io.TextIOWrapper(buffered, *text, **rest, line_buffering=buffering == 1)

    builtins.open = io.open = patched  # type: ignore[assignment]


def _patch_descriptors(injector: Injector) -> None:
    real_open, real_write, real_sendfile = os.open, os.write, os.sendfile

    def patched_open(path: Any, flags: int, *args: Any, **options: Any) -> int:
        watched = injector.watched(path) if flags & WRITING and not options.get("dir_fd") else None
        if watched is None:
            return real_open(path, flags, *args, **options)
        op = "create" if flags & os.O_EXCL else "open"
        return injector.around(op, watched, lambda: real_open(path, flags, *args, **options))

    def patched_write(descriptor: int, data: Any) -> int:
        path = injector.watched(descriptor)
        if path is None:
            return real_write(descriptor, data)

        def part(share: float) -> tuple[int, int]:
            view = memoryview(data).cast("B")
            return real_write(descriptor, view[: int(len(view) * share)]), len(view)

        return injector.around("write", path, lambda: real_write(descriptor, data), part)

    def patched_sendfile(out_fd: int, in_fd: int, offset: int, count: int, **options: Any) -> int:
        path = injector.watched(out_fd)
        if path is None:
            return real_sendfile(out_fd, in_fd, offset, count, **options)
        return injector.around("write", path, lambda: real_sendfile(out_fd, in_fd, offset, count, **options))

    os.open, os.write, os.sendfile = patched_open, patched_write, patched_sendfile  # type: ignore[assignment]


def _patch_sqlite(injector: Injector) -> None:
    """Every statement that changes a database. A kill before one is a kill after the one before."""
    real = sqlite3.connect

    def patched(database: Any, *args: Any, **options: Any) -> sqlite3.Connection:
        connection = real(database, *args, **options)
        path = injector.watched(database) if str(database) != ":memory:" else None
        if path is not None:

            def on_statement(text: str) -> None:
                found = CHANGING_SQL.match(text)
                if found:
                    injector.around(f"sql {found[1].upper()}", path, lambda: None)

            connection.set_trace_callback(on_statement)
        return connection

    sqlite3.connect = sqlite3.dbapi2.connect = patched  # type: ignore[assignment,attr-defined]


class _Steps(importlib.abc.MetaPathFinder):
    """Counts training steps, once the harness's counter of them is imported."""

    MODULE = "harness.training.checkpoint"

    def __init__(self, injector: Injector) -> None:
        self.injector = injector

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self.MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def then_patch(module: ModuleType) -> None:
            execute(module)
            progress, real, injector = module.TrainingProgress, module.TrainingProgress.count, self.injector

            def count(self: Any, *args: Any) -> None:
                real(self, *args)
                injector.step(self.step)

            progress.count = count

        spec.loader.exec_module = then_patch  # type: ignore[method-assign]
        return spec
