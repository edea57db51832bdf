"""The user's own models, data sets, tricks, metrics and training functions, each from one Python file.

User code runs only when a study names it. Importing this package imports no torch.
"""

from harness.plugins.install import (
    METRICS,
    TRAINERS,
    install,
    installed,
    load_stored,
    only,
    save,
    uninstall,
    use,
)
from harness.plugins.load import Plugin, PluginError, load, load_all

__all__ = [
    "METRICS",
    "TRAINERS",
    "Plugin",
    "PluginError",
    "install",
    "installed",
    "load",
    "load_all",
    "load_stored",
    "only",
    "save",
    "uninstall",
    "use",
]
