"""Puts what plugins name into the tables of this process, and keeps plugins as their runs saw them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from harness.data import DATASETS
from harness.models import MODELS, VARIANTS
from harness.runs.folder import write_bytes
from harness.spec import sha256_of
from harness.tricks import TRICKS

if TYPE_CHECKING:
    from harness.plugins.load import Metric, Plugin, Trainer

# Puts what plugins name into the tables of this process, and takes it out again.


METRICS: dict[str, Metric] = {}  # beside top1, top5 and loss
TRAINERS: dict[str, Trainer] = {}  # beside the harness's own

_installed: dict[str, Plugin] = {}


def install(plugin: Plugin) -> None:
    """Add what the plugin names to the tables. Twice is once; another version of the file replaces it.

    Raises:
        PluginError: another installed plugin uses one of its names.
    """
    current = _installed.get(plugin.name)
    if current is not None and current.sha256 == plugin.sha256:
        return
    from harness.plugins.load import check_apart

    for other in _installed.values():
        if other.name != plugin.name:
            check_apart(other, plugin)
    uninstall(plugin.name)
    for table, entries in _places(plugin):
        table.update(entries)
    _installed[plugin.name] = plugin
    _forget_costs(plugin)


def uninstall(name: str) -> None:
    """Take a plugin's names out of the tables; nothing happens where it is not installed."""
    plugin = _installed.pop(name, None)
    if plugin is not None:
        for table, entries in _places(plugin):
            for key in entries:
                del table[key]


def installed() -> tuple[Plugin, ...]:
    """The plugins whose names are in the tables now."""
    return tuple(_installed.values())


@contextmanager
def only(plugins: Sequence[Plugin]) -> Iterator[None]:
    """For the block, the tables hold the harness's own names and those of these plugins, nothing else.

    A warm worker trains runs with and without plugins: each sees what its study named.

    Raises:
        PluginError: two of them use the same name.
    """
    before = installed()
    use(plugins)
    try:
        yield
    finally:
        use(before)


def use(plugins: Sequence[Plugin]) -> None:
    """From now on, the tables hold the harness's own names and those of these plugins, nothing else.

    Raises:
        PluginError: two of them use the same name.
    """
    wanted = {plugin.name: plugin.sha256 for plugin in plugins}
    for name, plugin in list(_installed.items()):
        if wanted.get(name) != plugin.sha256:
            uninstall(name)
    for plugin in plugins:
        install(plugin)


def _places(plugin: Plugin) -> list[tuple[MutableMapping[str, Any], Mapping[str, Any]]]:
    tables = plugin.tables
    variants = {
        variant: (model.name, args)
        for model in tables.models.values()
        for variant, args in model.variants.items()
    }
    return [
        (cast("MutableMapping[str, Any]", MODELS), tables.models),
        (cast("MutableMapping[str, Any]", VARIANTS), variants),
        (TRICKS, tables.tricks),
        (DATASETS, tables.datasets),
        (METRICS, tables.metrics),
        (TRAINERS, tables.trainers),
    ]


def _forget_costs(plugin: Plugin) -> None:
    """Costs are remembered by a model's name; another version of the plugin may mean another network."""
    costs = sys.modules.get("harness.models.costs")
    if costs is not None and plugin.tables.models:
        costs._answer.cache_clear()


# Plugins as they were when their runs were submitted: runs/.plugins/<sha256>/<file name>.
#
# A job that waits in a queue runs the code it was submitted with, whatever becomes of the user's file. The
# stored bytes are hashed before they run, so nothing runs that the run's spec does not name.


FOLDER = ".plugins"
_SHA256 = r"[0-9a-f]{64}"


def stored_path(runs_dir: Path, name: str, sha256: str) -> Path:
    """Where a plugin's source is kept beside the runs."""
    return runs_dir / FOLDER / sha256 / name


def save(plugin: Plugin, runs_dir: Path) -> None:
    """Keep the plugin's source for the runs that name it; atomic, and nothing is done the second time.

    An installed package is not copied: it has to be installed where the run is executed.
    """
    if plugin.source is None:
        return
    path = stored_path(runs_dir, plugin.name, plugin.sha256)
    if not path.exists() or path.read_bytes() != plugin.source:
        write_bytes(path, plugin.source)


def load_stored(plugins: Mapping[str, str], runs_dir: Path) -> tuple[Plugin, ...]:
    """The plugins (file name -> sha256) of a run's spec, from the store; verified before they are run.

    Raises:
        PluginError: a stored file is missing or not the one that was stored, a package has changed, or the
            plugin does not work here.
    """
    return tuple(_load_one(name, sha256, runs_dir) for name, sha256 in sorted(plugins.items()))


def _load_one(name: str, sha256: str, runs_dir: Path) -> Plugin:
    from harness.plugins.load import PluginError, load, load_package

    if not name.endswith(".py"):
        plugin = load_package(name)
        if plugin.sha256 != sha256:
            raise PluginError(
                "the installed package has changed since the run was planned; plan and run the study again",
                path=name,
            )
        return plugin
    path = stored_path(runs_dir, name, sha256)
    if not re.fullmatch(_SHA256, sha256):
        raise PluginError("is not named with the hash of its bytes", path=name)
    if path.parent.parent != runs_dir / FOLDER or path.name != name:
        raise PluginError("is not a plain file name", path=name)
    try:
        source = path.read_bytes()
    except OSError:
        raise PluginError(
            "is not in the store of the runs folder; `harness run` on the study puts it there", path=path
        ) from None
    if sha256_of(source) != sha256:
        raise PluginError(
            "has been changed since it was stored and is not run; delete it, and `harness run` on the study "
            "stores it again",
            path=path,
        )
    return load(path, source=source)
