"""Plugins as they were when their runs were submitted: runs/.plugins/<sha256>/<file name>.

A job that waits in a queue runs the code it was submitted with, whatever becomes of the user's file. The
stored bytes are hashed before they run, so nothing runs that the run's spec does not name.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from harness.plugins.errors import PluginError
from harness.plugins.load import Plugin, load, load_package
from harness.study.records import write_bytes

FOLDER = ".plugins"
_SHA256 = re.compile(r"[0-9a-f]{64}")


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
    if not name.endswith(".py"):
        plugin = load_package(name)
        if plugin.sha256 != sha256:
            raise PluginError(
                "the installed package has changed since the run was planned; plan and run the study again",
                path=name,
            )
        return plugin
    path = stored_path(runs_dir, name, sha256)
    if not _SHA256.fullmatch(sha256):
        raise PluginError("is not named with the hash of its bytes", path=name)
    if path.parent.parent != runs_dir / FOLDER or path.name != name:
        raise PluginError("is not a plain file name", path=name)
    try:
        source = path.read_bytes()
    except OSError:
        raise PluginError(
            "is not in the store of the runs folder; `harness run` on the study puts it there", path=path
        ) from None
    if hashlib.sha256(source).hexdigest() != sha256:
        raise PluginError(
            "has been changed since it was stored and is not run; delete it, and `harness run` on the study "
            "stores it again",
            path=path,
        )
    return load(path, source=source)
