"""What the documents say exists: links, make targets, commands, names."""

from __future__ import annotations

import argparse
import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from harness.cli import build_parser
from harness.models import find
from harness.models.costs import lookup
from harness.tricks.base import HOOKS
from tests.conftest import of_each

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)[^)]*\)")
IMAGE = re.compile(r'src="([^"]+)"')
MACHINE_PATH = re.compile(r"(?<![\w.:)\]>*/-])/(?:[a-z]+/)+\w")  # an absolute path, not part of a URL


def code_lines(text: str) -> list[str]:
    """Every line of the fenced shell blocks of a page, without comments and prompts."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.S)
    return [line.strip() for block in blocks for line in block.splitlines() if line.strip()]


@of_each(PAGES)
def test_every_relative_link_leads_to_a_file(page: Path):
    text = page.read_text()
    targets = [t for t in LINK.findall(text) + IMAGE.findall(text) if "://" not in t]
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert not missing


@of_each(PAGES)
def test_no_page_names_a_path_of_one_machine(page: Path):
    assert MACHINE_PATH.findall(page.read_text()) == []


@cache
def made_and_parsed() -> tuple[set[str], argparse.ArgumentParser]:
    """The targets of make, and what reads the arguments of `harness`."""
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M)), build_parser()


@of_each(PAGES)
def test_every_command_in_a_shell_block_exists(page: Path):
    targets, parser = made_and_parsed()
    for line in code_lines(page.read_text()):
        words = shlex.split(line, comments=True)
        if words[:1] == ["make"]:
            named = [word for word in words[1:] if "=" not in word]
            assert set(named) <= targets, line
        elif words[:1] in (["harness"], [".venv/bin/harness"]):
            if words[1:] not in (["--help"], ["--version"]):
                parser.parse_args(words[1:])  # SystemExit where an argument does not exist
            for word in words:
                if word.endswith(".yaml") and word.startswith("studies/"):
                    assert (ROOT / word).exists() or "my_" in word, line


def test_the_readme_gives_the_two_commands_in_its_first_screen():
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_every_hook_is_documented_for_people_who_write_tricks():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert [hook for hook in HOOKS if f"`{hook}`" not in text] == []


def test_the_path_rule_sees_what_it_should():
    assert MACHINE_PATH.search("put it in /home/me/data") is not None
    assert MACHINE_PATH.search("see [x](docs/a/b.md), reports/x/y, https://example.org/a/b, mean/sd") is None


def test_the_code_extractor_sees_what_it_should():
    assert code_lines("```sh\nmake demo\n```\n```python\nx\n```\n```bash\nharness plan a\n```") == [
        "make demo",
        "harness plan a",
    ]


def fidelity_rows() -> dict[str, list[str]]:
    """Network -> the cells of its row in docs/fidelity.md."""
    lines = (ROOT / "docs" / "fidelity.md").read_text().splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")
    ]
    return {row[0].strip("`"): row[1:] for row in cells}


def test_the_fidelity_page_has_the_networks_that_are_built_today():
    for name, (params, *_, macs, _printed, _reference, _checks) in fidelity_rows().items():
        side = find(name).input_size
        counted = lookup(name, {}, resolution=side, classes=10 if side == 32 else 1000)
        assert (params, macs) == (f"{counted[0]:,}", f"{counted[1] / 1e9:.3f}"), f"{name}: make fidelity"


def test_the_fidelity_page_has_every_network_of_the_reference_table_and_every_known_deviation():
    import yaml

    text = (ROOT / "docs" / "fidelity.md").read_text()
    reference = yaml.safe_load((ROOT / "docs" / "reference" / "papers.yaml").read_text())["model_costs"][
        "rows"
    ]
    rows = fidelity_rows()
    ours = {row["model"]: row["gmacs"] for row in reference if row["model"] in rows}
    built_by_another = {"googlenet_torchvision"}
    assert {row["model"] for row in reference} - set(ours) == built_by_another
    for name, gmacs in ours.items():
        assert rows[name][6] == f"{gmacs:g}"
        assert float(rows[name][4]) == pytest.approx(gmacs, rel=0.005)
    assert [name for name in rows if find(name).note not in text] == []


def test_every_network_that_a_library_has_as_well_was_checked_against_it():
    for name, (_params, _printed, torchvision, timm, *_, checks) in fidelity_rows().items():
        assert ("torchvision/" in checks) == bool(torchvision), name
        assert ("timm/" in checks) == bool(timm), name
    assert sum(bool(row[-1]) for row in fidelity_rows().values()) >= 15


# Where something new goes, and where decisions are made

PLACEHOLDER = re.compile("NAME|FAMILY|FORMAT|CHAPTER")


def table_below(page: str, heading: str) -> list[list[str]]:
    """The cells of the first table below a heading, without its head."""
    section = (ROOT / page).read_text().split(f"{heading}\n", 1)[1]
    lines = [line for line in section.split("\n## ", 1)[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def paths_in(cell: str) -> list[str]:
    return [path for path in re.findall(r"`([^`]+)`", cell) if "/" in path and " " not in path]


@of_each(table_below("CONTRIBUTING.md", "## Add something else"))
def test_what_is_there_already_stands_where_the_table_says(row: list[str]):
    """A path with NAME stands for at least one file, and the place that names it names these."""
    assert len(row) == 4
    homes = paths_in(row[1])
    assert homes
    for path in [*homes, *paths_in(row[2]), *paths_in(row[3])]:
        assert list(ROOT.glob(PLACEHOLDER.sub("*", path))), path
    for place in paths_in(row[2]):
        if PLACEHOLDER.search(homes[0]):
            text = (ROOT / place).read_text()
            found = [path.stem for path in ROOT.glob(PLACEHOLDER.sub("*", homes[0])) if path.stem in text]
            assert found, f"{place} names nothing of {homes[0]}"


@of_each(table_below("docs/architecture.md", "## Where decisions are made"))
def test_a_decision_is_made_where_the_table_says(row: list[str]):
    for path in paths_in(row[1]) + [name for name in re.findall(r"`([a-z]+\.py)`", row[1])]:
        assert (ROOT / "harness" / path).is_file(), path


def test_every_package_is_in_the_architecture():
    table = table_below("docs/architecture.md", "# Architecture")
    named = set(re.findall(r"`(\w+)`", " ".join(row[0] for row in table)))
    packages = {path.parent.name for path in (ROOT / "harness").glob("*/__init__.py")}
    assert packages | {"errors", "spec", "cli", "api"} <= named
