"""What docs/security.md promises: hostile texts, paths and files run nothing and reach nothing."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import pickle
import re
import shutil
import stat
import struct
import subprocess
import sys
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from rich.table import Table
from rich.text import Text

from harness import cli
from harness.commands.progress import HouseConsole
from harness.commands.workspace import build_catalogue
from harness.data import DATASETS
from harness.data.loading import decoded_once
from harness.data.pixels import decode
from harness.data.sets import read_idx
from harness.errors import UNPRINTABLE, StudyError, Visible
from harness.plugins.install import load_stored
from harness.plugins.load import PluginError
from harness.reporting.figures.style import twin
from harness.reporting.frames import csv_text
from harness.reporting.html import TEMPLATES
from harness.slurm.cluster import Cluster
from harness.slurm.controller import Slurm, SlurmSettings
from harness.study.expand import load_study
from harness.training.weights import read_torch_file
from tests.fuzz import workplace
from tests.fuzz.corpus import TINY, plain
from tests.scheduling.fakes import job
from tests.timing import PATIENCE_S

OWN_SCRIPT = (TEMPLATES / "report.js").read_text()  # of every HTML report
CANARY = "canary"  # a file that nothing may make
SHELL = f"$(touch {CANARY}) `touch {CANARY}`; touch {CANARY} & || touch {CANARY}"
LABELS = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>",
    "\\input{secret.tex} \\write18{id} \\def\\x{",
    '#read("secret") #eval("1") $#include',
    "[x](javascript:alert(1)) ![y](http://evil.example/z.png) | cell | <b>",
    '{{ 7 * 7 }} {% include "x" %} ${7*7}',
    "$\\frac{1$ _{^ \" ' --> ]]> &amp;",
    SHELL,
)


class Bomb:
    """Unpickling it makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self):
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The canary's path, in the current folder; it must not be there after the test."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path / CANARY
    assert not (tmp_path / CANARY).exists(), "something from a file was executed"


def test_the_bomb_goes_off_where_it_may(tmp_path: Path):
    pickle.loads(pickle.dumps(Bomb(tmp_path / CANARY)))
    assert (tmp_path / CANARY).exists()


# Shells


def test_nothing_of_a_study_or_a_path_is_executed_by_the_sbatch_script(canary: Path, tmp_path: Path):
    """The script is executed by bash, with an srun that writes down its arguments."""
    runs_dir = tmp_path / f"runs $(touch {CANARY}) `touch {CANARY}`; touch {CANARY} &"
    settings = SlurmSettings(
        runs_dir=runs_dir, data_dir=tmp_path / "data; id", cluster=Cluster(), study="tiny", size="mini"
    )
    scripts = Slurm(settings).scripts([job(1)])
    text = scripts[scripts.index("#!") :]
    programs = tmp_path / "bin"
    programs.mkdir()
    srun = programs / "srun"
    srun.write_text(f'#!/bin/bash\nprintf "%s\\n" "$@" > {tmp_path}/arguments\n')
    srun.chmod(0o755)
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash"], input=text, text=True, env=environment, capture_output=True, timeout=PATIENCE_S
    )
    assert done.returncode == 0, done.stderr
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert str(runs_dir) in arguments
    assert arguments[arguments.index("harness.cli") :][1] == "agent"


def test_a_study_is_named_in_letters_that_mean_nothing_to_a_shell_or_a_path(tmp_path: Path):
    data = plain(TINY)
    for name in ("../x", "a b", "a;b", "$(id)", "a\nb", "-x", "A", "", "a" * 101):
        path = tmp_path / "study.yaml"
        path.write_text(yaml.safe_dump({**data, "study": name}))
        with pytest.raises(StudyError, match="study must be lower-case letters, digits, - and _"):
            load_study(path, build_catalogue(tmp_path))


@pytest.mark.parametrize(
    "tag",
    ["!!python/object/apply:os.mkdir [canary]", "!!python/name:os.system x", "!!python/module:os x", "!x y"],
)
def test_a_tag_builds_nothing(tag: str, canary: Path, tmp_path: Path):
    path = tmp_path / "study.yaml"
    path.write_text(TINY.read_text() + f"expect: {tag}\n")
    with pytest.raises(StudyError, match=r"study\.yaml:29: .*the tag \S+ is not part of the study format"):
        load_study(path, build_catalogue(tmp_path))


# Paths


@pytest.mark.parametrize("folder", ["../x", "/etc", "a/../../b", ".."])
def test_a_data_set_lies_in_the_data_folder(folder: str):
    with pytest.raises(ValueError, match="folder must lie inside the data folder"):
        DATASETS["imagefolder"].validate({"folder": folder, "side": None})
    with pytest.raises(ValueError, match="file must lie inside the data folder"):
        DATASETS["npz"].validate({**DATASETS["npz"].args, "file": folder})


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        ("../../lab.py", "0" * 64),
        ("lab.py", ".."),
        ("lab.py", "../../elsewhere"),
        ("/tmp/lab.py", "0" * 64),
        ("a/lab.py", "0" * 64),
    ],
)
def test_a_plugin_of_a_run_comes_from_the_store_alone(name: str, sha256: str, canary: Path, tmp_path: Path):
    source = b"import os\nos.mkdir('canary')\n"
    for place in (
        tmp_path,
        tmp_path / "runs",
        tmp_path / "elsewhere",
        tmp_path / "runs" / ".plugins" / ("0" * 64),
    ):
        place.mkdir(parents=True, exist_ok=True)
        (place / "lab.py").write_bytes(source)
    with pytest.raises(PluginError, match=r"is not a plain file name|is not named with the hash"):
        load_stored({name: sha256}, tmp_path / "runs")


def test_a_stored_plugin_that_was_changed_is_not_run(canary: Path, tmp_path: Path):
    sha256 = hashlib.sha256(b"METRICS = {}\n").hexdigest()
    place = tmp_path / "runs" / ".plugins" / sha256
    place.mkdir(parents=True)
    (place / "lab.py").write_text("import os\nos.mkdir('canary')\n")
    with pytest.raises(PluginError, match="has been changed since it was stored and is not run"):
        load_stored({"lab.py": sha256}, tmp_path / "runs")


# Reports


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of a study whose every text is hostile; the folder in which the command was called."""
    folder = tmp_path_factory.mktemp("hostile")
    data = plain(TINY)
    rows = [{"label": label, "note": LABELS[0]} for label in LABELS]
    for row, rate in zip(rows, range(1, 100), strict=False):
        row["set"] = {"lr": rate / 100}
    data |= {"question": " ".join(LABELS), "expect": LABELS[0], "unknown": list(LABELS)}
    data["tables"] = {
        "t": {"title": LABELS[0] + LABELS[5], "design": "rows", "note": LABELS[3], "rows": rows}
    }
    study = folder / TINY.name
    study.write_text(yaml.safe_dump(data, allow_unicode=True))
    place = workplace.Workplace(folder)
    for spec in place.specs():
        workplace.write_run(spec, place.runs_dir)
    assert place.harness("report", "--out", str(folder / "report")) == 0
    return folder


class Reader(HTMLParser):
    """Every tag, and every attribute that could run or load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.active: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for name, value in attrs:
            goes_out = name in ("href", "src", "xlink:href", "action", "data") and not (
                value or ""
            ).startswith("#")
            if name.startswith("on") or goes_out:
                self.active.append((name, value))


def test_no_text_of_a_study_becomes_a_part_of_a_page(report: Path):
    for path in [report / "report" / "report.html", *(report / "report" / "figures").glob("*.svg")]:
        reader = Reader()
        page = path.read_text()
        reader.feed(page.replace(f"<script>{OWN_SCRIPT}</script>", "", 1))
        assert not reader.tags & {"script", "img", "iframe", "object", "embed", "b", "form", "base"}, path
        assert [each for each in reader.active if not str(each[1]).startswith("data:")] == [], path
    assert "&lt;script&gt;" in (report / "report" / "report.html").read_text()


def test_no_text_of_a_study_is_a_command_of_latex_or_markdown(report: Path):
    (tex,) = [path for path in (report / "report" / "tables").glob("*.tex") if path.stem == "t"]
    commands = set(re.findall(r"(?<!\\)(?:\\\\)*\\([A-Za-z]+)", tex.read_text()))
    assert "textbackslash" in commands
    assert not commands & {"input", "write", "def", "frac", "include", "openin"}
    markdown = "".join((report / "report" / f"{name}.md").read_text() for name in ("report", "details"))
    assert re.search(r"(?<!\\)<(script|img|b)\b", markdown) is None
    links = re.findall(r"(?<!\\)\]\(([^)]*)\)", markdown)
    assert links
    assert [link for link in links if not link.startswith(("figures/", "details.md#", "report.md"))] == []


def test_typst_gets_data_and_its_template_reads_nothing_but_them(report: Path):
    assert (report / "report" / "report.pdf").read_bytes().startswith(b"%PDF")
    template = (Path(cli.__file__).parent / "reporting" / "templates" / "report.typ").read_text()
    assert re.findall(r"\b(?:eval|read|plugin|include|import|csv|yaml|toml|xml|cbor)\b\s*\(", template) == []
    assert re.findall(r"\bjson\(([^)]*)\)", template) == ['"report.json"']


def test_a_report_executes_nothing_and_stays_in_its_folder(report: Path):
    assert not (report / CANARY).exists()
    found = {path.name for path in report.iterdir()}
    assert found == {TINY.name, "runs", "report", "mlflow.db", "mlartifacts"}


@pytest.mark.parametrize("name", ["data", "figures", "tables"])
def test_a_report_never_replaces_a_folder_that_is_not_its_own(name: str, report: Path, tmp_path: Path):
    """`harness report --out .` beside the user's own data sets, or beside the figures of a paper."""
    place = workplace.Workplace(report)
    mine = tmp_path / name / "train" / "cat.jpg"
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"irreplaceable")
    assert place.harness("report", "--out", str(tmp_path)) == cli.USAGE_ERROR
    shutil.copy(report / "report" / "report.json", tmp_path)  # there may have been a report before
    assert place.harness("report", "--out", str(tmp_path)) == cli.USAGE_ERROR
    assert mine.read_bytes() == b"irreplaceable"


# Files that could run something when they are read


def test_a_checkpoint_with_a_pickle_is_refused(canary: Path, tmp_path: Path):
    path = tmp_path / "weights.pt"
    torch.save({"weight": Bomb(canary)}, path)
    # In our own words: torch's advise to load it all the same.
    with pytest.raises(Exception, match="something other than tensors and plain data"):
        read_torch_file(path)
    path.write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(Exception, match="something other than tensors and plain data"):
        read_torch_file(path)


def test_decoded_images_with_a_pickle_are_refused(canary: Path, tmp_path: Path):
    path = tmp_path / "images.npy"
    np.save(path, np.array([Bomb(canary)], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="Python objects"):
        decoded_once(path, lambda: np.zeros(1))


@pytest.mark.filterwarnings("ignore")
def test_cifar_s_own_pickles_are_read_only_if_their_digest_is_the_published_one(canary: Path, tmp_path: Path):
    folder = tmp_path / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name in ("batches.meta", "test_batch", *(f"data_batch_{number}" for number in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Bomb(canary)))
    with pytest.raises(ValueError, match="is incomplete or damaged"):
        DATASETS["cifar10"].load({}, tmp_path)


# Files that unfold


def test_a_gzip_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("harness.data.sets.LARGEST", 2**20)
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(bytes(2**24)))
    assert path.stat().st_size < 2**16
    with pytest.raises(ValueError, match=r"ubyte\.gz unzips to more than 1,048,576 bytes"):
        read_idx(path)


def test_an_image_bomb_is_refused_by_name(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    png = (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )
    path = tmp_path / "bomb.png"
    path.write_bytes(png)
    with pytest.raises(ValueError, match=r"cannot read the image file .*bomb\.png.*exceeds limit"):
        decode(path)


# Terminals


def test_records_cannot_write_escape_sequences_to_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    place = workplace.finished_study(tmp_path)
    first, *_ = sorted(place.runs_dir.glob("[!.]*"))
    (first / "summary.json").unlink()
    record = workplace.RunFolder(first)
    record.append_event("failed", message="\x1b]0;owned\x07\x1b[2J\nsecond line", attempt=1)
    for command in ("status", "plan"):
        assert place.harness(command) == 0
    assert cli.main(["logs", first.name, "--runs", str(place.runs_dir)]) == 0
    said = capsys.readouterr()
    assert "owned" in said.out
    assert "\x1b" not in said.out + said.err
    assert "\x07" not in said.out + said.err


def test_what_a_submission_holds_is_for_its_user_alone(tmp_path: Path):
    from harness.slurm.submission import FOLDER
    from tests.scheduling.test_submission import write

    folder = write(tmp_path, [job(1)]).folder
    assert folder.parent.name == FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202egnp\u2066\x9b31m"


def test_nothing_of_others_commands_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A claim's host, a status, a file's name: whatever is printed goes through one stream."""
    monkeypatch.chdir(tmp_path)
    place = workplace.finished_study(tmp_path)
    first, second, *_ = sorted(place.runs_dir.glob("[!.]*"))
    (first / "summary.json").unlink()
    claim = {"host": HOSTILE + "\nsecond line", "pid": 1, "job": HOSTILE, "time_s": 1.0, "token": "x"}
    (first / "claim.1").write_text(json.dumps(claim))
    summary = json.loads((second / "summary.json").read_text())
    (second / "summary.json").write_text(json.dumps({**summary, "status": HOSTILE}))
    for command in ("status", "plan", "sync", "report"):
        place.harness(command)
    cli.main(["plan", str(tmp_path / f"{HOSTILE}.yaml")])
    cli.main(["check-plugin", str(tmp_path / f"{HOSTILE}.py")])
    cli.main(["run", HOSTILE])
    said = capsys.readouterr()
    assert "owned" in said.out
    assert "owned" in said.err
    assert not re.search(UNPRINTABLE, (said.out + said.err).replace("\n", "").replace("\t", ""))


def test_rich_shows_its_own_colours_and_nobody_else_s():
    """On a terminal the harness's styles are sequences; those in a text stay text, in tables too."""
    file = io.StringIO()
    console = HouseConsole(
        file=file, force_terminal=True, color_system="standard", width=200, highlight=False
    )
    view = Table("heading")
    view.add_row(HOSTILE)
    console.print(HOSTILE, style="bold")
    console.print(Text(HOSTILE), view)
    text = file.getvalue()
    assert "\x1b[1m" in text
    assert set(re.findall("\x1b[^m]*m?", text)) == {"\x1b[1m", "\x1b[0m"}
    assert "\\x1b]0;owned" in text


def test_a_terminal_of_another_encoding_gets_the_number_of_a_letter():
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="latin-1", write_through=True)
    print("é猫\ud800", file=Visible(stream))
    assert raw.getvalue() == "é\\u732b\\ud800\n".encode("latin-1")


BYPASSES = {  # what goes round the one place -> the only modules that may
    r"\bConsole\(": {"display.py"},
    r"sys\.__std(out|err)__|\.std(out|err)\.buffer|os\.write\([12]\b": {"__main__.py", "kernel_probe.py"},
    r"\bcsv\.writer\(": {"frames.py"},
    r"\bMarkup\((?!\"\")": {"html.py"},
    r"autoescape=False|\|\s*safe\b": set(),
    r"://\[\^@|://\*\*\*": {"errors.py"},
}


def bypasses(name: str, text: str) -> list[str]:
    """The patterns of `BYPASSES` that a module uses and may not."""
    code = re.sub(r'"""(?:.|\n)*?"""', "", text)
    return [each for each, allowed in BYPASSES.items() if name not in allowed and re.search(each, code)]


def test_no_module_goes_round_the_one_place():
    sources = [path for path in Path(cli.__file__).parent.rglob("*") if path.suffix in (".py", ".html")]
    assert [(path.name, found) for path in sources if (found := bypasses(path.name, path.read_text()))] == []
    planted = ["x = Console()", "os.write(1, b'')", "csv.writer(file)", "Markup(label)", "{{ label | safe }}"]
    assert [bool(bypasses("planted.py", text)) for text in planted] == [True] * len(planted)


def test_what_python_calls_printable_holds_nothing_that_must_not_be_shown():
    """So that texts need not be searched for it."""
    printable = "".join(filter(str.isprintable, map(chr, range(sys.maxunicode + 1))))
    assert len(printable) > 100_000
    assert not re.search(UNPRINTABLE, printable)


@pytest.mark.parametrize("start", ["=1+1", "+ A1", "-2+3", "@SUM(1)", "\tx"])
def test_no_field_of_a_table_of_others_is_a_formula(start: str):
    item = {"label": start, start: 1.5}
    (head, line) = csv.reader(io.StringIO(twin([item]), newline=""))
    assert (head, line) == (["label", f" {start}"], [f" {start}", "1.5"])
    assert csv_text(["a"], [[start], [-0.5]]).endswith("\n-0.5\n")
    for text in ("\r=1", "a\r=1", "a\r\n=1"):
        assert [row[0][:1] for row in csv.reader(io.StringIO(csv_text([text], []), newline=""))] in (
            ["a"],
            [" "],
        )
