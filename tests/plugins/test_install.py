"""The tables of a process with and without plugins, and the store that queued runs load them from."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from harness.data import DATASETS
from harness.data import load as load_data
from harness.models import MODELS, VARIANTS, build_model
from harness.models.costs import lookup
from harness.plugins.install import (
    METRICS,
    TRAINERS,
    install,
    load_stored,
    only,
    save,
    stored_path,
    uninstall,
)
from harness.plugins.load import PluginError, load
from harness.tricks import TRICKS
from harness.tricks.build import make
from tests.plugins.sources import DATA, METRIC, MODEL, TRAINER, TRICK, loaded, written

TABLES = (MODELS, VARIANTS, TRICKS, DATASETS, METRICS, TRAINERS)


def names() -> list[list[str]]:
    return [list(table) for table in TABLES]


@pytest.fixture(autouse=True)
def tables_as_before() -> Iterator[None]:
    before = names()
    with only([]):
        yield
    assert names() == before


def test_install_adds_every_name_once_and_uninstall_removes_it(tmp_path: Path) -> None:
    before = names()
    plugin = loaded(tmp_path, TRICK + MODEL + DATA + METRIC + TRAINER)
    install(plugin)
    install(plugin)
    added = [sorted(set(now) - set(was)) for now, was in zip(names(), before, strict=True)]
    assert added == [["tiny_net"], ["tiny_net_wide"], ["halves"], ["noise"], ["confidence"], ["guess"]]
    assert make("halves", {}).name == "halves"
    torch.manual_seed(0)
    assert build_model("tiny_net_wide", {}, classes=3)[0].out_channels == 16
    assert load_data("noise", {}, train_images=None, test_images=None, data_dir=tmp_path).classes == 3
    uninstall("my_lab.py")
    uninstall("my_lab.py")
    assert names() == before


def test_another_version_of_the_file_replaces_the_first_with_everything_that_depends_on_it(
    tmp_path: Path,
) -> None:
    install(loaded(tmp_path, TRICK + MODEL + DATA))
    asked = {"args": {}, "resolution": 8, "classes": 3}
    cost, first = lookup("tiny_net", **asked), TRICKS["halves"]
    images = load_data("noise", {}, train_images=None, test_images=None, data_dir=tmp_path)
    changed = (
        (TRICK + MODEL + DATA).replace("round(8 * width)", "round(16 * width)").replace("(0, 30)", "(7, 30)")
    )
    install(loaded(tmp_path, changed.replace('name="tiny_net"', 'name="tiny_net"')))
    assert TRICKS["halves"] is not first
    assert lookup("tiny_net", **asked) > cost
    again = load_data("noise", {}, train_images=None, test_images=None, data_dir=tmp_path)
    assert again.fingerprint != images.fingerprint
    install(loaded(tmp_path, METRIC))
    assert "halves" not in TRICKS
    assert "confidence" in METRICS


def test_two_installed_plugins_may_not_use_the_same_name(tmp_path: Path) -> None:
    install(loaded(tmp_path, METRIC, "one.py"))
    with pytest.raises(PluginError, match=r"two\.py: METRICS has 'confidence', which one\.py has too"):
        install(loaded(tmp_path, METRIC + TRICK, "two.py"))
    assert "halves" not in TRICKS


def test_a_worker_sees_in_each_run_what_that_run_names_and_nothing_else(tmp_path: Path) -> None:
    one, two = loaded(tmp_path, METRIC + TRICK, "one.py"), loaded(tmp_path, METRIC, "two.py")
    install(one)
    with only([two]):
        assert ("halves" in TRICKS, METRICS["confidence"]) == (False, two.tables.metrics["confidence"])
        with only([]):
            assert not METRICS
        assert "confidence" in METRICS
    assert ("halves" in TRICKS, METRICS["confidence"]) == (True, one.tables.metrics["confidence"])
    with pytest.raises(RuntimeError), only([]):
        raise RuntimeError
    assert "halves" in TRICKS


def test_a_stored_plugin_is_the_one_that_was_submitted_whatever_becomes_of_the_file(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    plugin = loaded(tmp_path, METRIC)
    save(plugin, runs)
    written(tmp_path, METRIC.replace("amax(1)", "amin(1)"))
    (stored,) = load_stored({"my_lab.py": plugin.sha256}, runs)
    assert (stored.name, stored.sha256, stored.source) == (plugin.name, plugin.sha256, plugin.source)
    path = stored_path(runs, "my_lab.py", plugin.sha256)
    assert path == runs / ".plugins" / plugin.sha256 / "my_lab.py"
    before = path.stat().st_mtime_ns
    save(plugin, runs)
    assert path.stat().st_mtime_ns == before
    assert [each.name for each in path.parent.iterdir()] == ["my_lab.py"]


def test_nothing_is_run_that_the_spec_does_not_name(tmp_path: Path) -> None:
    runs, ran = tmp_path / "runs", tmp_path / "ran"
    plugin = loaded(tmp_path, METRIC)
    with pytest.raises(PluginError, match="is not in the store of the runs folder"):
        load_stored({"my_lab.py": plugin.sha256}, runs)
    save(plugin, runs)
    path = stored_path(runs, "my_lab.py", plugin.sha256)
    path.write_text(f"open({str(ran)!r}, 'w')\n" + METRIC)
    with pytest.raises(PluginError, match="has been changed since it was stored and is not run"):
        load_stored({"my_lab.py": plugin.sha256}, runs)
    assert not ran.exists()
    save(plugin, runs)  # mends it
    assert load_stored({"my_lab.py": plugin.sha256}, runs)
    for name in ("../my_lab.py", "/my_lab.py", "a/my_lab.py"):
        with pytest.raises(PluginError, match="is not a plain file name"):
            load_stored({name: plugin.sha256}, runs)


def test_a_stored_plugin_that_is_broken_here_says_so_with_its_line(tmp_path: Path) -> None:
    text = METRIC + "import os\nif os.environ.get('BROKEN_HERE'):\n    raise OSError('no such disk')\n"
    plugin = load(written(tmp_path, text))
    save(plugin, tmp_path / "runs")
    code = (
        "import sys; from pathlib import Path; from harness.plugins.install import load_stored\n"
        "from harness.plugins.load import PluginError\n"
        f"try: load_stored({{'my_lab.py': {plugin.sha256!r}}}, Path({str(tmp_path / 'runs')!r}))\n"
        "except PluginError as error: print(error)"
    )
    elsewhere = {**os.environ, "BROKEN_HERE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=elsewhere, capture_output=True, text=True, check=True
    )
    assert re.search(r"my_lab\.py:9: importing it failed: OSError: no such disk", done.stdout)
