"""The user's own models, data sets, tricks, metrics and training functions, each from one Python file.

User code runs only when a study names it. Importing this package imports no torch.
"""

from harness.plugins.errors import PluginError
from harness.plugins.install import METRICS, TRAINERS, install, installed, only, uninstall, use
from harness.plugins.load import Plugin, load, load_all
from harness.plugins.store import load_stored, save

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
