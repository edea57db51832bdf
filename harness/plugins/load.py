"""From a file, or an installed package, to a `Plugin`. The bytes that are hashed are the bytes that run."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import hashlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from harness.data import DATASETS
from harness.data.entry import Entry
from harness.errors import nearest
from harness.models import MODELS, VARIANTS
from harness.models.entry import Model
from harness.spec import PER_CLASS
from harness.study.reserved import RESULTS, why_not
from harness.tricks import TRICKS
from harness.tricks.base import HOOKS, Trick

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


# What is wrong with a plugin, in words and with its place; never a traceback.


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
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    own = [frame.lineno or 0 for frame in frames if frame.filename == str(path)]
    text = str(error).strip().splitlines() or [""]
    what = f"{type(error).__name__}: {text[0]}".rstrip(": ")
    return PluginError(f"{doing} failed: {what}", path=path, line=own[-1] if own else 0)


# The five tables that a plugin may name, read and checked: types, names, signatures. Runs no user function.
#
# MODELS = (Model(...),)          harness.models.entry.Model TRICKS = (MyTrick,)             classes,
# harness.tricks.base.Trick DATASETS = (Entry(...),)        harness.data.entry.Entry METRICS = {"ece":
# function}     function(logits (N, K), labels (N,)) -> float TRAINERS = {"mine": function}   function(spec,
# run) -> {"top1": percent, ...}


Metric = Callable[[Any, Any], float]  # logits (N, K) float, labels (N,) int64, on the CPU -> a finite number
Trainer = Callable[[Any, Any], Any]  # spec, run -> metrics; see harness.training.run

NAMES = ("MODELS", "TRICKS", "DATASETS", "METRICS", "TRAINERS")
BUILT_IN: Mapping[str, frozenset[str]] = {
    "MODELS": frozenset({*MODELS, *VARIANTS}),
    "TRICKS": frozenset(TRICKS),
    "DATASETS": frozenset(DATASETS),
    "METRICS": frozenset({*RESULTS, "train_loss", *PER_CLASS}),
    "TRAINERS": frozenset({"harness"}),
}
KINDS = {
    "MODELS": "model",
    "TRICKS": "trick",
    "DATASETS": "data set",
    "METRICS": "metric",
    "TRAINERS": "trainer",
}
GOOD_NAME = re.compile(r"[a-z][a-z0-9_]*")
GOOD_NAME_OF_AN_ARCHITECTURE = re.compile(r"[a-z][a-z0-9_.-]*")


class Breach(ValueError):
    """A table breaks the contract. `anchor` is the name in the source nearest to the mistake."""

    def __init__(self, message: str, anchor: str) -> None:
        super().__init__(message)
        self.anchor = anchor


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a plugin adds: name -> thing, in the order of the file."""

    models: Mapping[str, Model] = field(default_factory=dict)
    tricks: Mapping[str, type[Trick]] = field(default_factory=dict)
    datasets: Mapping[str, Entry] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    trainers: Mapping[str, Trainer] = field(default_factory=dict)

    def names(self) -> dict[str, list[str]]:
        """Table -> every name in it that a study may use, variants of models included."""
        models = [name for model in self.models.values() for name in (model.name, *model.variants)]
        others = (self.tricks, self.datasets, self.metrics, self.trainers)
        return {"MODELS": models, **{table: list(own) for table, own in zip(NAMES[1:], others, strict=True)}}


def read_tables(found: Mapping[str, Any]) -> Tables:
    """The tables among the names that a plugin's file defines.

    Raises:
        Breach: a table is not what its line in this module's docstring says, or a name is taken or unusable.
    """
    if not any(name in found for name in NAMES):
        raise Breach(_no_table(found), "")
    tables = Tables(
        models=_things(found, "MODELS", Model),
        tricks=_tricks(found),
        datasets=_things(found, "DATASETS", Entry),
        metrics=_functions(found, "METRICS", "function(logits, labels) -> float"),
        trainers=_functions(found, "TRAINERS", "function(spec, run) -> metrics"),
    )
    for table, names in tables.names().items():
        for name in names:
            _check_name(table, name)
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise Breach(f"{table} has the name '{twice[0]}' twice", table)
    return tables


def _no_table(found: Mapping[str, Any]) -> str:
    near = [
        f"'{name}' (did you mean {close}?)"
        for name in found
        if name.isupper() and (close := nearest(name, NAMES))
    ]
    but = f"; it has {', '.join(near)}" if near else ""
    return f"names nothing a study could use: it needs one of {', '.join(NAMES)}{but}"


def _check_name(table: str, name: Any) -> None:
    kind = KINDS[table]
    pattern = GOOD_NAME_OF_AN_ARCHITECTURE if table == "MODELS" else GOOD_NAME
    if not isinstance(name, str) or not pattern.fullmatch(name):
        raise Breach(
            f"a {kind} cannot be called {name!r}: lower-case letters, digits and _, a letter first", table
        )
    if name in BUILT_IN[table]:
        raise Breach(f"{kind} '{name}' is one of the harness's own; call yours something else", table)
    if taken := why_not(kind, name):
        raise Breach(f"{taken}; call yours something else", table)


def _sequence(found: Mapping[str, Any], table: str) -> list[Any]:
    value = found.get(table, ())
    if not isinstance(value, list | tuple):
        what = type(value).__name__
        raise Breach(
            f"{table} must be a tuple, with a comma also after a single entry: it is a {what}", table
        )
    return list(value)


def _things(found: Mapping[str, Any], table: str, kind: type[Any]) -> dict[str, Any]:
    things = _sequence(found, table)
    for each in things:
        if not isinstance(each, kind):
            raise Breach(
                f"{table} holds {kind.__module__}.{kind.__name__}(...) only, not {each!r:.80}", table
            )
    names = [each.name for each in things]
    for name in names:
        if names.count(name) > 1:
            raise Breach(f"{table} has the name {name!r} twice", table)
    return dict(zip(names, things, strict=True))


def _tricks(found: Mapping[str, Any]) -> dict[str, type[Trick]]:
    tricks: dict[str, type[Trick]] = {}
    for each in _sequence(found, "TRICKS"):
        if isinstance(each, Trick):
            name = type(each).__name__
            raise Breach(f"TRICKS holds classes: write {name}, not {name}(...)", "TRICKS")
        if not (isinstance(each, type) and issubclass(each, Trick)):
            raise Breach(
                f"TRICKS holds subclasses of harness.tricks.base.Trick only, not {each!r:.80}", "TRICKS"
            )
        _check_trick(each)
        if each.name in tricks:
            raise Breach(f"TRICKS has the name '{each.name}' twice", each.__name__)
        tricks[each.name] = each
    return tricks


def _check_trick(trick: type[Trick]) -> None:
    """What can be said of a trick's class without making one."""
    where = trick.__name__
    if not isinstance(getattr(trick, "name", None), str):
        raise Breach(f'{where} needs a name: name: ClassVar[str] = "..."', where)
    if "__dataclass_params__" not in vars(trick) or not vars(trick)["__dataclass_params__"].frozen:
        raise Breach(
            f"{where} must be a frozen dataclass: @dataclass(frozen=True, kw_only=True) above it", where
        )
    for option in dataclasses.fields(trick):
        if option.default is dataclasses.MISSING:
            raise Breach(f"{where}: option '{option.name}' needs a default", where)
    for name in vars(trick):
        if name.startswith("edit_") and name not in HOOKS:
            near = nearest(name, HOOKS)
            hint = f"; did you mean {near}?" if near else "."
            raise Breach(f"{where}: {name} is not a hook{hint} Hooks: {', '.join(HOOKS)}", where)
        if name in HOOKS:
            _check_hook(trick, name)


def _check_hook(trick: type[Trick], hook: str) -> None:
    wanted = list(inspect.signature(getattr(Trick, hook)).parameters)[1:]
    if not _takes(getattr(trick, hook), 1 + len(wanted)):
        raise Breach(f"{trick.__name__}.{hook} must take (self, {', '.join(wanted)})", trick.__name__)


def _functions(found: Mapping[str, Any], table: str, signature: str) -> dict[str, Callable[..., Any]]:
    value = found.get(table, {})
    if not isinstance(value, Mapping):
        raise Breach(f"{table} must be a dict, name -> {signature}: it is a {type(value).__name__}", table)
    for name, function in value.items():
        if not callable(function) or not _takes(function, 2):
            raise Breach(f"{table}: '{name}' must be a {signature}", getattr(function, "__name__", table))
    return dict(value)


def _takes(function: Callable[..., Any], count: int) -> bool:
    """Whether it can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # a built-in that does not say
        return True
    return True


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


class _Loader(SourceFileLoader):
    """Runs given bytes under a file's name; reads and writes no file, of bytecode neither."""

    def __init__(self, name: str, path: Path, source: bytes) -> None:
        super().__init__(name, str(path))
        self._source = source

    def get_data(self, path: str) -> bytes:
        return self._source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, self.path)


def _run(source: bytes, path: Path, sha256: str) -> ModuleType:
    """A new module in which the source was run; what it prints goes to stderr."""
    name = f"harness_plugin_{sha256[:16]}"
    loader = _Loader(name, path, source)
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
