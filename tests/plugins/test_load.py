"""From a file to a plugin: what is read, and how mistakes are said, with file and line and no traceback."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from harness.plugins.load import PluginError, load, load_all, load_package
from tests.plugins.sources import DATA, METRIC, MODEL, TRAINER, TRICK, loaded, written


def test_every_table_is_read_and_the_bytes_are_hashed(tmp_path: Path) -> None:
    text = TRICK + MODEL + DATA + METRIC + TRAINER
    plugin = loaded(tmp_path, text)
    assert plugin.name == "my_lab.py"
    assert plugin.sha256 == hashlib.sha256(text.encode()).hexdigest()
    assert plugin.source == text.encode()
    assert plugin.tables.names() == {
        "MODELS": ["tiny_net", "tiny_net_wide"],
        "TRICKS": ["halves"],
        "DATASETS": ["noise"],
        "METRICS": ["confidence"],
        "TRAINERS": ["guess"],
    }


def test_the_same_bytes_run_once_in_a_process_and_other_bytes_anew(tmp_path: Path) -> None:
    first = loaded(tmp_path, TRICK)
    assert loaded(tmp_path, TRICK).tables.tricks["halves"] is first.tables.tricks["halves"]
    other = loaded(tmp_path, TRICK + "\n# changed\n")
    assert other.tables.tricks["halves"] is not first.tables.tricks["halves"]


def test_what_a_plugin_prints_does_not_spoil_json_on_stdout(tmp_path: Path, capsys) -> None:
    loaded(tmp_path, "print('hello from my lab')\n" + METRIC)
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "hello from my lab\n")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("def f(:\n    pass\n", 1, "not valid Python"),
        ("x = 1\nimport no_such_module_at_all\n", 2, "No module named 'no_such_module_at_all'"),
        (
            "def f():\n    return 1 / 0\n\n\nf()\n",
            2,
            "importing it failed: ZeroDivisionError: division by zero",
        ),
        ("import json\njson.loads('{')\n", 2, "importing it failed: JSONDecodeError"),
        ("raise SystemExit(3)\n", 1, "importing it failed: SystemExit: 3"),
        ("x = 1\n", 0, "names nothing a study could use: it needs one of MODELS, TRICKS"),
        ("TRICK = ()\n", 0, "'TRICK' (did you mean TRICKS?)"),
        ("x = 1\nMETRICS = [1]\n", 2, "METRICS must be a dict"),
        ("METRICS = {'ece': 3}\n", 1, "'ece' must be a function(logits, labels)"),
        (
            "\n\ndef ece(logits):\n    return 0\nMETRICS = {'ece': ece}\n",
            3,
            "must be a function(logits, labels)",
        ),
        ("METRICS = {'top1': max}\n", 1, "metric 'top1' is one of the harness's own"),
        ("METRICS = {'My Metric': max}\n", 1, "cannot be called 'My Metric'"),
        ("TRAINERS = {'harness': max}\n", 1, "trainer 'harness' is one of the harness's own"),
        ("MODELS = ('resnet',)\n", 1, "MODELS holds harness.models.entry.Model(...) only"),
        ("MODELS = {}\n", 1, "MODELS must be a tuple"),
        (
            MODEL.replace("tiny_net_wide", "resnet50d"),
            "MODELS",
            "model 'resnet50d' is one of the harness's own",
        ),
        (MODEL.replace('"tiny_net"', '"timm/resnet18"'), "MODELS", "cannot be called 'timm/resnet18'"),
        (DATA.replace('"noise"', '"cifar10"'), "DATASETS", "data set 'cifar10' is one of the harness's own"),
        (TRICK.replace('"halves"', '"mixup"'), "TRICKS", "trick 'mixup' is one of the harness's own"),
        (TRICK.replace("(Halves,)", "(Halves(),)"), "TRICKS", "write Halves, not Halves(...)"),
        (TRICK.replace("(Halves,)", "(dict,)"), "TRICKS", "subclasses of harness.tricks.base.Trick only"),
        (TRICK.replace("(Halves,)", "Halves"), "TRICKS", "with a comma also after a single entry"),
        (
            TRICK.replace("edit_batch", "edit_batches"),
            "class Halves",
            "edit_batches is not a hook; did you mean edit_batch?",
        ),
        (
            TRICK.replace("batch, rng, context", "batch"),
            "class Halves",
            "must take (self, batch, rng, context)",
        ),
        (TRICK.replace("frozen=True, ", "").replace("(Trick)", "(object)"), "TRICKS", "subclasses of"),
        (
            TRICK.replace("    name: ClassVar[str]", "    share: float\n    name: ClassVar[str]"),
            "class Halves",
            "needs a default",
        ),
        (TRICK.replace('    name: ClassVar[str] = "halves"\n', ""), "class Halves", "needs a name"),
        (
            TRICK.replace("@dataclass(frozen=True, kw_only=True)\n", ""),
            "class Halves",
            "must be a frozen dataclass",
        ),
    ],
)
def test_mistakes_are_said_in_words_with_file_and_line(
    tmp_path: Path, text: str, place: int | str, words: str
) -> None:
    path = written(tmp_path, text)
    starts = (number for number, line in enumerate(text.splitlines(), 1) if line.startswith(str(place)))
    line = place if isinstance(place, int) else next(starts)
    with pytest.raises(PluginError) as caught:
        load(path)
    assert words in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert (caught.value.path, caught.value.line) == (str(path), line)
    assert str(caught.value).startswith(f"{path}:{line}: " if line else f"{path}: ")


def test_the_place_is_the_users_own_last_line_not_the_librarys(tmp_path: Path) -> None:
    path = written(tmp_path, "import statistics\n\n\ndef f():\n    return statistics.mean([])\n\n\nf()\n")
    with pytest.raises(PluginError) as caught:
        load(path)
    assert caught.value.line == 5


def test_code_beside_the_file_is_refused_because_it_would_not_be_hashed(tmp_path: Path) -> None:
    (tmp_path / "helpers.py").write_text("x = 1\n")
    (tmp_path / "json.py").write_text("raise RuntimeError\n")  # the standard library's is meant
    for line in ("import helpers", "from helpers import x", "from . import helpers"):
        with pytest.raises(PluginError, match=r"my_lab\.py:2: imports .* a plugin is one file"):
            loaded(tmp_path, f"import json\n{line}\n{METRIC}")


def test_a_file_that_is_not_there_names_those_that_are(tmp_path: Path) -> None:
    written(tmp_path, METRIC, "mine.py")
    with pytest.raises(PluginError, match=r"no such file; Python files there: mine\.py"):
        load(tmp_path / "my_lab.py")
    with pytest.raises(PluginError, match="cannot be read"):
        load(tmp_path)


def test_two_plugins_of_a_study_use_no_name_twice(tmp_path: Path) -> None:
    one, other = written(tmp_path, METRIC, "one.py"), written(tmp_path, METRIC, "two.py")
    with pytest.raises(PluginError, match=r"two\.py: METRICS has 'confidence', which one\.py has too"):
        load_all([one, other])
    (tmp_path / "deep").mkdir()
    same = written(tmp_path / "deep", TRICK, "one.py")
    with pytest.raises(PluginError, match="has the same file name as"):
        load_all([one, same])
    assert [plugin.name for plugin in load_all([one, written(tmp_path, TRICK, "three.py")])] == [
        "one.py",
        "three.py",
    ]


def package(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> Path:
    """An installed package that offers `my_package` in the entry-point group."""
    (folder / "lab_things").mkdir()
    (folder / "lab_things" / "__init__.py").write_text(text)
    (folder / "lab_things" / "deep").mkdir()
    (folder / "lab_things" / "deep" / "more.py").write_text("x = 1\n")
    info = folder / "lab_things-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-things\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[harness.plugins]\nmy_package = lab_things\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "lab_things", raising=False)
    return folder / "lab_things"


def test_an_installed_package_is_a_plugin_and_its_files_are_its_identity(tmp_path: Path, monkeypatch) -> None:
    folder = package(tmp_path, monkeypatch, METRIC)
    plugin = load_package("my_package")
    assert (plugin.name, plugin.source) == ("my_package", None)
    assert list(plugin.tables.metrics) == ["confidence"]
    assert load_all([Path("my_package")]) == (plugin,)
    (folder / "deep" / "more.py").write_text("x = 2\n")
    assert load_package("my_package").sha256 != plugin.sha256
    with pytest.raises(PluginError, match=r"no installed package offers it .*found: .*my_package"):
        load_package("your_package")


def test_a_package_that_fails_says_so(tmp_path: Path, monkeypatch) -> None:
    package(tmp_path, monkeypatch, "METRICS = {'top5': max}\n")
    with pytest.raises(PluginError, match="my_package: metric 'top5' is one of"):
        load_package("my_package")


def test_loading_a_plugin_without_torch_imports_no_torch(tmp_path: Path) -> None:
    path = written(tmp_path, TRICK + MODEL + METRIC + TRAINER)
    code = (
        "import sys; from pathlib import Path; from harness.plugins.install import install\n"
        "from harness.plugins.load import load\n"
        f"install(load(Path({str(path)!r}))); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
