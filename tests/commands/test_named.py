"""What is typed finds what is meant: studies by name, commands and options that are nearly right."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from harness import __version__
from harness.cli import build_parser, main
from harness.runs.provenance import code_version, package
from harness.study.yaml import shipped_studies, study_file
from tests.end_to_end.workplace import TINY
from tests.timing import PATIENCE_S

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    code = main(argv)
    return code, *capsys.readouterr()


def test_a_bare_name_is_looked_for_here_in_studies_and_among_the_shipped_ones(folder: Path):
    shipped = shipped_studies() / "mixup.yaml"
    assert study_file(Path("mixup")) == shipped
    assert study_file(Path("mixup.yaml")) == shipped
    for place in ("studies/mixup.yaml", "mixup.yaml", "mixup"):
        Path(place).parent.mkdir(exist_ok=True)
        Path(place).touch()
        assert study_file(Path("mixup")) == Path(place)
    Path("mixup").unlink()
    Path("mixup").mkdir()
    assert study_file(Path("mixup")) == Path("mixup"), "a folder that is named is meant"


def test_a_name_with_a_folder_is_looked_for_there_only(folder: Path):
    Path("lab").mkdir()
    Path("lab/own.yaml").touch()
    assert study_file(Path("lab/own")) == Path("lab/own.yaml")
    assert study_file(Path("lab/mixup")) == Path("lab/mixup"), "as it was said, for the message"


def test_a_shipped_study_is_planned_from_an_empty_folder(folder: Path, capsys: pytest.CaptureFixture[str]):
    code, out, _ = said(capsys, "plan", "colour_check", "--json")
    assert code == 0
    assert json.loads(out)["study"] == "colour_check"
    assert list(folder.iterdir()) == []


def test_an_unknown_name_says_where_it_was_looked_for(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("mine.yaml").touch()
    code, _, errors = said(capsys, "plan", "mixupp")
    assert code == 2
    assert "mixupp: no such file, here, in studies/ or among the shipped studies; " in errors
    assert "did you mean 'mixup'?" in errors
    assert "mine" in errors


def test_the_shipped_studies_are_listed_where_there_are_no_others(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    _, out, _ = said(capsys, "studies", "--json")
    assert "mixup" in {row["study"] for row in json.loads(out)}
    Path("studies").mkdir()
    Path("studies/tiny.yaml").write_text(TINY.read_text())
    _, out, _ = said(capsys, "studies", "--json")
    assert [row["study"] for row in json.loads(out)] == ["tiny"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (("pln", "mixup"), "harness: unknown command 'pln'; did you mean 'plan'? Valid: audit, "),
        (("plan", "mixup", "--smok3"), "harness plan: unknown option '--smok3'; did you mean '--smoke'?"),
        (("plan", "mixup", "--siez=gpu"), "harness plan: unknown option '--siez'; did you mean '--size'?"),
        (("logs", "abc", "--smoke"), "no runs here yet"),
    ],
)
def test_what_is_mistyped_gets_the_nearest_name(
    folder: Path, capsys: pytest.CaptureFixture[str], typed: tuple[str, ...], words: str
):
    code, _, errors = said(capsys, *typed)
    assert code == 2
    assert words in errors


def test_the_version_has_a_short_form(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main(["-V"])
    assert left.value.code == 0
    assert capsys.readouterr().out == f"harness {__version__}\n"


def test_without_a_command_all_of_them_are_shown(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as left:
        main([])
    assert left.value.code == 0
    assert "\n    verify " in capsys.readouterr().out


def test_every_command_says_what_it_does_and_what_each_argument_means():
    parser = build_parser()
    for name, command in parser._subparsers._group_actions[0].choices.items():  # type: ignore[union-attr]
        assert command.description, name
        for action in command._actions:
            is_said = bool(action.help) or name == "agent"  # called by sbatch scripts, not by hand
            assert is_said, f"{name} {action.dest}"


def test_what_a_data_set_lacks_is_said_with_its_whole_path(folder: Path, capsys: pytest.CaptureFixture[str]):
    data = folder / ("a_long_name" * 9)
    _, out, _ = said(capsys, "data", "--data", str(data))
    assert f"{data / 'cifar10' / 'cifar-10-batches-py'}" in out


@pytest.mark.parametrize("words", [("plan", "bag_of_tricks"), ("--help",)], ids=["much", "little"])
def test_a_reader_that_leaves_early_is_no_error(words: tuple[str, ...]):
    command, pipe = [sys.executable, "-m", "harness", *words], subprocess.PIPE
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, cwd=ROOT, env=kept) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(timeout=PATIENCE_S) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_an_installed_package_says_which_commit_it_was_built_from(tmp_path: Path):
    within = tmp_path / package().name
    within.mkdir()
    assert code_version(tmp_path) == {"commit": None, "dirty": None}
    (within / "source.json").write_text('{"commit": "abc", "dirty": false}')
    assert code_version(tmp_path) == {"commit": "abc", "dirty": False}


def has_setuptools() -> bool:
    """Whether there is one as pyproject.toml asks for; a new environment of Python 3.11 has an older one."""
    return find_spec("setuptools") is not None and int(version("setuptools").partition(".")[0]) >= 77


def build(root: Path, kind: str, place: Path) -> Path:
    """A distribution of the sources in `root`: bdist_wheel or sdist. Writes nothing there."""
    place.mkdir()
    made = ["build", "-b", place / "build"] if kind == "bdist_wheel" else []
    command = [sys.executable, "setup.py", "-q", "egg_info", "-e", place, *made, kind, "-d", place]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    [file] = [path for path in place.iterdir() if path.suffix in (".whl", ".gz")]
    return file


@pytest.mark.campaign
@pytest.mark.skipif(not has_setuptools(), reason="builds a wheel, which takes setuptools 77 or newer")
def test_a_wheel_has_the_studies_the_licences_and_its_commit(tmp_path: Path):
    wheel = build(ROOT, "bdist_wheel", tmp_path / "wheel")
    with zipfile.ZipFile(io.BytesIO(wheel.read_bytes())) as file:
        names = set(file.namelist())
        source = json.loads(file.read("harness/source.json"))
    shipped = {f"harness/shipped/{path.name}" for path in (ROOT / "studies").glob("*.yaml")}
    assert shipped <= names
    assert source["commit"] == code_version(ROOT)["commit"]
    assert sum("licenses/" in name for name in names) == 2


@pytest.mark.campaign
@pytest.mark.skipif(not has_setuptools(), reason="builds a package, which takes setuptools 77 or newer")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git which files there are")
def test_a_source_distribution_is_the_checkout_and_what_is_installed_from_it_works(tmp_path: Path):
    with tarfile.open(build(ROOT, "sdist", tmp_path / "sdist")) as file:
        file.extractall(tmp_path / "unpacked", filter="data")
    [sources] = (tmp_path / "unpacked").iterdir()
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)
    kept = [name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()]
    assert [name for name in kept if not (sources / name).exists()] == [".gitignore"]

    # As pip unpacks a wheel of Python alone, which it makes of the sources; no git is near.
    with zipfile.ZipFile(build(sources, "bdist_wheel", tmp_path / "wheel")) as file:
        file.extractall(tmp_path / "site")
    assert code_version(tmp_path / "site")["commit"] == code_version(ROOT)["commit"]
    (tmp_path / "empty").mkdir()
    runs = "".join(f"{row},{seed},9{seed}.{row}\n" for row in range(3) for seed in range(3))
    (tmp_path / "empty" / "r.csv").write_text(f"recipe,seed,acc\n{runs}")
    code = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); import harness.cli as cli; "
    code += "print(cli.__file__, flush=True); sys.exit(cli.main())"
    for words in (["-V"], ["plan", "bag_of_tricks"], ["table", "r.csv", "--percent"]):
        command = [sys.executable, "-P", "-c", code, *words]
        done = subprocess.run(command, cwd=tmp_path / "empty", capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stderr)
        assert done.stdout.startswith(str(tmp_path / "site")), words
    assert (tmp_path / "empty" / "reports" / "r" / "report.pdf").exists()


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_completes_commands_options_and_shipped_studies(
    shell: str, capsys: pytest.CaptureFixture[str]
):
    code, script, _ = said(capsys, "completion", shell)
    assert code == 0
    assert all(word in script for word in ("check-plugin", "--smoke", "bag_of_tricks"))


def test_bash_takes_its_script(folder: Path, capsys: pytest.CaptureFixture[str]):
    Path("mixed.yaml").touch()
    Path("mixed.txt").touch()
    _, script, _ = said(capsys, "completion", "bash")
    call = "; COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _shtab_harness; echo ${COMPREPLY[*]}"
    for words, completed in {
        "pl": "plan",
        "run --sm": "--smoke",
        "plan mix": "mixup mixup_cifar mixed.yaml",
    }.items():
        typed = f"{script}\nCOMP_WORDS=(harness {words}){call}"
        done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True)
        assert done.stdout.split() == completed.split(), (words, done.stderr)


def test_bash_completes_the_rows_tables_and_columns_of_the_study_on_the_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
):
    Path("tiny.yaml").write_text(TINY.read_text().replace("label: Distilled", "label: Baseline (2)"))
    _, status, _ = said(capsys, "status", "tiny.yaml", "--json")
    Path("status.json").write_text(status)
    _, script, _ = said(capsys, "completion", "bash")
    call = "; COMP_CWORD=$((${#COMP_WORDS[@]}-1)); _shtab_harness; echo ${COMPREPLY[*]}"
    asked = 'harness() { [ "$*" = "status tiny.yaml --json" ] && cat status.json; }'
    for words, completed in {
        r"plan tiny.yaml --row ''": r"Baseline Baseline\ \(2\) Smoothed",
        r"plan tiny.yaml --row 'Baseline\ \('": r"Baseline\ \(2\)",
        "cancel tiny.yaml --row S": "Smoothed",
        "run tiny.yaml --table ''": "only",
        "plan other --row ''": "",
        "table tiny.yaml --row ''": "",
    }.items():
        typed = f"{script}\n{asked}\nCOMP_WORDS=(harness {words}){call}"
        done = subprocess.run(["bash", "-c", typed], capture_output=True, text=True)
        assert done.stdout.strip() == completed, (words, done.stderr)
