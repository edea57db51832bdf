"""Puts what plugins name into the tables of this process, and takes it out again."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from harness.data import DATASETS
from harness.models import MODELS, VARIANTS
from harness.plugins.load import Plugin, check_apart
from harness.plugins.tables import Metric, Trainer
from harness.tricks import TRICKS

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
        (cast("MutableMapping[str, Any]", TRICKS), tables.tricks),
        (DATASETS, tables.datasets),
        (METRICS, tables.metrics),
        (TRAINERS, tables.trainers),
    ]


def _forget_costs(plugin: Plugin) -> None:
    """Costs are remembered by a model's name; another version of the plugin may mean another network."""
    costs = sys.modules.get("harness.models.costs")
    if costs is not None and plugin.tables.models:
        costs._answer.cache_clear()
