"""From a file, or an installed package, to a `Plugin`. The bytes that are hashed are the bytes that run."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.abc
import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from harness.plugins.errors import PluginError, from_exception
from harness.plugins.tables import Breach, Tables, read_tables

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "harness.plugins"  # entry-point group of installed packages


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One plugin: where it came from, the identity of its code, and what it adds."""

    name: str  # the file's name, or that of the entry point
    sha256: str  # of the file's bytes; of a package: over the names and bytes of all its Python files
    path: Path
    source: bytes | None  # None: an installed package
    tables: Tables
    doc: str = ""  # the file's docstring


_loaded: dict[tuple[str, str], ModuleType] = {}  # (name, sha256): the same code is run once in a process


def load_all(named: Sequence[Path]) -> tuple[Plugin, ...]:
    """The plugins of one study: files, or without `.py` the names of installed packages' entry points.

    Raises:
        PluginError: one of them cannot be used, or two have the same file name.
    """
    plugins: dict[str, Plugin] = {}
    for path in named:
        plugin = load(path) if path.suffix == ".py" else load_package(str(path))
        if plugin.name in plugins:
            other = plugins[plugin.name].path
            raise PluginError(f"has the same file name as {other}; rename one", path=plugin.path)
        for earlier in plugins.values():
            check_apart(earlier, plugin)
        plugins[plugin.name] = plugin
    return tuple(plugins.values())


def load(path: Path, *, source: bytes | None = None) -> Plugin:
    """Run a plugin's file, or `source` in its place, and check what it names.

    Raises:
        PluginError: no such file, an exception while it runs, or a breach of the contract, with file:line.
    """
    if source is None:
        source = _read(path)
    sha256 = hashlib.sha256(source).hexdigest()
    tree = _parse(source, path)
    _refuse_neighbours(tree, path)
    module = _loaded.get((path.name, sha256)) or _run(source, path, sha256)
    try:
        tables = read_tables(vars(module))
    except Breach as breach:
        raise PluginError(str(breach), path=path, line=_line_of(tree, breach.anchor)) from None
    _loaded[path.name, sha256] = module
    return Plugin(
        name=path.name, sha256=sha256, path=path, source=source, tables=tables, doc=module.__doc__ or ""
    )


def load_package(name: str) -> Plugin:
    """A plugin that an installed package offers as entry point `name` of the group `harness.plugins`.

    Raises:
        PluginError: there is none, or it cannot be used.
    """
    from importlib.metadata import entry_points

    offered = {each.name: each for each in entry_points(group=GROUP)}
    if name not in offered:
        raise PluginError(
            f"no installed package offers it in the entry-point group {GROUP} (found: "
            f"{', '.join(sorted(offered)) or 'none'}); a file's name ends in .py",
            path=name,
        )
    folder, files = _package_files(offered[name])
    try:
        with contextlib.redirect_stdout(sys.stderr):
            thing = offered[name].load()
        tables = read_tables({key: getattr(thing, key) for key in dir(thing)})
    except Breach as breach:
        raise PluginError(str(breach), path=name) from None
    except (Exception, SystemExit) as error:
        raise from_exception(error, folder, "importing it") from None
    return Plugin(
        name=name,
        sha256=_digest(folder, files),
        path=folder,
        source=None,
        tables=tables,
        doc=getattr(thing, "__doc__", None) or "",
    )


def check_apart(one: Plugin, other: Plugin) -> None:
    """Two plugins of one study may not use the same name for the same kind of thing.

    Raises:
        PluginError: they do.
    """
    mine = one.tables.names()
    for table, names in other.tables.names().items():
        both = sorted(set(names) & set(mine[table]))
        if both:
            raise PluginError(f"{table} has '{both[0]}', which {one.name} has too", path=other.path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        beside = sorted(file.name for file in path.parent.glob("*.py")) if path.parent.is_dir() else []
        found = f"; Python files there: {', '.join(beside)}" if beside else ""
        raise PluginError(f"no such file{found}", path=path) from None
    except OSError as error:
        raise PluginError(f"cannot be read: {error.strerror}", path=path) from None


def _parse(source: bytes, path: Path) -> ast.Module:
    try:
        return ast.parse(source, filename=str(path))
    except SyntaxError as error:
        raise from_exception(error, path, "reading it") from None
    except ValueError as error:  # null bytes
        raise PluginError(f"not valid Python: {error}", path=path) from None


def _refuse_neighbours(tree: ast.Module, path: Path) -> None:
    """A plugin is one file: code beside it would run without being hashed, and not where a queue runs it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module or ""] if not node.level else ["." + (node.module or "")]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            beside = (path.parent / f"{top}.py").is_file() or (path.parent / top / "__init__.py").is_file()
            if name.startswith(".") or (top != "harness" and top not in sys.stdlib_module_names and beside):
                raise PluginError(
                    f"imports '{name}' from beside it; a plugin is one file: its bytes are the identity of "
                    "its runs. Put everything into the file, or install the rest as a package",
                    path=path,
                    line=node.lineno,
                )


class _Loader(importlib.abc.SourceLoader):
    """Runs given bytes under a file's name; reads and writes no file."""

    def __init__(self, path: Path, source: bytes) -> None:
        self._path, self._source = path, source

    def get_filename(self, fullname: str) -> str:
        return str(self._path)

    def get_data(self, path: str | bytes) -> bytes:
        return self._source


def _run(source: bytes, path: Path, sha256: str) -> ModuleType:
    """A new module in which the source was run; what it prints goes to stderr."""
    name = f"harness_plugin_{sha256[:16]}"
    loader = _Loader(path, source)
    spec = importlib.util.spec_from_loader(name, loader)
    if spec is None:  # only for loaders without a spec
        raise PluginError("cannot be loaded", path=path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and cards look a class's module up here
    try:
        with contextlib.redirect_stdout(sys.stderr):
            loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise from_exception(error, path, "importing it") from None
    return module


def _line_of(tree: ast.Module, anchor: str) -> int:
    """Where a class, a function or a variable is written at the top of the file; 0 where it is not."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == anchor:
            return node.lineno
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == anchor for target in targets):
            return node.lineno
    return 0


def _package_files(entry: EntryPoint) -> tuple[Path, list[Path]]:
    top = entry.module.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None or spec.origin is None:
        raise PluginError(f"its package {top} has no Python file", path=entry.name)
    origin = Path(spec.origin)
    return (
        (origin.parent, sorted(origin.parent.rglob("*.py")))
        if spec.submodule_search_locations
        else (
            origin.parent,
            [origin],
        )
    )


def _digest(folder: Path, files: Sequence[Path]) -> str:
    total = hashlib.sha256()
    for path in files:
        source = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()} {len(source)}\n".encode())
        total.update(source)
    return total.hexdigest()
