"""The plugins of a study: loaded before it is planned, stored before anything is submitted."""

from __future__ import annotations

from pathlib import Path

from harness.plugins import Plugin, PluginError, installed, load_all, save
from harness.study.plugins import study_plugins
from harness.study.problems import Problem, StudyError


def load_plugins(study: Path) -> tuple[Plugin, ...]:
    """The plugins that a study file names. This runs their code; nothing else does while planning.

    Raises:
        StudyError: one of them cannot be used, with the place in its file.
    """
    files = study_plugins(study)
    try:
        return load_all(files)
    except PluginError as error:
        raise StudyError([Problem(error.path, error.line, error.message)]) from None


def store_plugins(runs_dir: Path) -> None:
    """Keep the source of the plugins that the last plan was made with beside the runs, so that queued runs
    use the code they were submitted with."""
    for plugin in installed():
        save(plugin, runs_dir)
