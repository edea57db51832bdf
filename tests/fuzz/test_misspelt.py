"""200 misspelt files: each is told file, line, what is wrong and the nearest name, and nothing is written.

`python -m tests.fuzz.test_misspelt` prints what each of them is told.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest

from harness import cli
from harness.errors import edits
from tests.fuzz.corpus import TINY

STUDY = TINY.read_text(encoding="utf-8")
NEAR = 2  # edits up to which a name must be found
# Words of the small study; names of its own (tiny, only, mini) are nobody's mistake.
NAMES = (
    *(
        "study",
        "question",
        "seeds",
        "baseline",
        "sizes",
        "arms",
        "tables",
        "title",
        "design",
        "rows",
        "label",
    ),
    *("model", "recipe", "data", "resolution", "train_images", "test_images", "epochs", "batch_scale"),
    *("models", "width", "depth", "add", "top1", "status", "memory", "verified", "label_smoothing"),
    *("distillation", "resnet50", "bag_of_tricks_baseline", "fashion_mnist", "cifar10", "imagenet"),
)
HEAD = "recipe,seed,top1"
LINES = [
    f"{row},{seed},{90 + 2 * place + seed / 7:.2f}"
    for place, row in enumerate(("baseline", "cosine", "mixup"))
    for seed in range(3)
]


@dataclass(frozen=True)
class Misspelt:
    """A file with one mistake. `line`: on which it is; 0: it shows elsewhere. `name`: what was meant."""

    text: str
    line: int
    name: str = ""
    wrote: str = ""
    options: tuple[str, ...] = ()
    column: str = ""  # of a CSV
    begins: int = 0  # the line that was changed, where what is wrong shows further below


def misspell(word: str, random: Random) -> str:
    """The word with one slip: two letters swapped, one left out, doubled, or another one."""
    at = random.randrange(1, len(word))
    slips = (
        word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :],
        word[:at] + word[at + 1 :],
        word[:at] + word[at - 1] + word[at:],
        word[:at] + random.choice("aeinrstz") + word[at + 1 :],
    )
    slip = random.choice(slips)
    return slip if slip not in (word, *NAMES) else misspell(word, random)


def study(number: int) -> Misspelt:
    """The misspelt study of this number: in six of ten a name, in the others what makes it YAML."""
    random = Random(f"study {number}")
    lines = STUDY.splitlines()
    if number % 10 < 6:
        name = NAMES[(number // 10 * 6 + number % 10) % len(NAMES)]
        places = [
            (k, found) for k, line in enumerate(lines) if k for found in re.finditer(rf"\b{name}\b", line)
        ]
        k, found = random.choice(places)
        wrote = misspell(name, random)
        lines[k] = lines[k][: found.start()] + wrote + lines[k][found.end() :]
        return Misspelt("\n".join(lines) + "\n", k + 1, name, wrote)
    k = random.choice([k for k, line in enumerate(lines) if k and line.strip()])
    line = lines[k]
    slips: tuple[Callable[[], str], ...] = (
        lambda: " " * random.randint(1, 3) + line,
        lambda: "\t" + line,
        lambda: line.replace(":", "", 1),
        lambda: line.replace(": ", ":", 1),
        lambda: re.sub(r"[\]}]", "", line, count=1) if re.search(r"[\]}]", line) else f"{line} ]",
        lambda: re.sub(r"(: )", r'\1"', line, count=1) if ": " in line else f'"{line}',
    )
    lines[k] = slips[number % len(slips)]()
    return Misspelt("\n".join(lines) + "\n", 0, begins=k + 1)


def table(number: int) -> Misspelt:
    """The misspelt file of results of this number."""
    random = Random(f"table {number}")
    lines, k = list(LINES), random.randrange(len(LINES))
    row, seed, value = lines[k].split(",")
    said = ("--row", "recipe", "--seed", "seed", "--metric", "top1")
    kind = number % 10
    if kind < 3:
        name = HEAD.split(",")[kind]
        wrote = misspell(name, random)
        return Misspelt("\n".join([HEAD.replace(name, wrote), *lines]), 1, wrote, name, said)
    if kind == 3:
        wrote = misspell("cosine", random)
        return Misspelt("\n".join([HEAD, *lines]), 1, "cosine", wrote, ("--versus", wrote), "recipe")
    if kind == 4:
        lines[k] = random.choice((f"{row},{seed}", f"{lines[k]},0", f'"{lines[k]}', f"{row};{seed};{value}"))
        return Misspelt("\n".join([HEAD, *lines]), k + 2)
    if kind == 5:
        wrote = random.choice(("l", "0.5", "", "one", "1e99"))
        lines[k] = f"{row},{wrote},{value}"
        return Misspelt("\n".join([HEAD, *lines]), k + 2, column="seed")
    if kind == 6:
        lines[k] = f",{seed},{value}"
        return Misspelt("\n".join([HEAD, *lines]), k + 2, column="recipe")
    if kind == 7:
        lines.insert(k, lines[k])
        return Misspelt("\n".join([HEAD, *lines]), k + 3, column="seed")
    wrote = random.choice((f"{value}%", value.replace(".", ","), f"{value}.1", "9l.2", "1e400x", f"-{value}",
                           f"{float(value) / 100}", f"{value} ± 0.1", "0x5d", "101"))  # fmt: skip
    lines[k] = f'{row},{seed},"{wrote}"'
    return Misspelt("\n".join([HEAD, *lines]), k + 2, column="top1")


def told(folder: Path, case: Misspelt, kind: str) -> tuple[int, str]:
    """Exit code and standard error of the command that reads it."""
    path = folder / ("s.yaml" if kind == "study" else "r.csv")
    path.write_text(case.text, encoding="utf-8")
    before = sorted(folder.rglob("*"))
    arguments = {
        "study": ["plan", str(path), "--runs", str(folder / "runs"), "--data", str(folder / "data")],
        "table": ["table", str(path), "--percent", *case.options, "--out", str(folder / "out")],
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        code = cli.main(arguments[kind])
    assert sorted(folder.rglob("*")) == before or code == cli.DONE
    return code, said.getvalue().replace(f"{folder}/", "")


def wrong_with(case: Misspelt, code: int, said: str, kind: str) -> str:
    """What the message lacks; "": nothing."""
    if code == cli.DONE and not case.line:  # another indent may be another study
        return ""
    *problems, _ = said.splitlines() or [""]
    places = [re.match(r"(s\.yaml|r\.csv):([0-9]+): ", line) for line in problems]
    if code != cli.USAGE_ERROR or not problems or not all(places) or "Traceback" in said:
        return "is not refused with file and line"
    if case.line and case.line not in [int(place[2]) for place in places if place]:
        return f"does not name line {case.line}"
    if (
        '"' in case.text
        and "unexpected end of stream" in said
        and f"that begins on line {case.begins}" not in said
    ):
        return f"does not name line {case.begins}, where the quotation begins"
    if "not valid YAML" in said and not re.search(r"\(column [0-9]+\)", said):
        return "does not name the column"
    if case.column and f"column '{case.column}'" not in said:
        return f"does not name the column {case.column}"
    near = [edits(case.wrote, name) for name in re.findall(r"(?:did you mean|is it) '([^']+)'", said)]
    if case.name and not (near and min(near) <= edits(case.wrote, case.name) <= NEAR):
        return f"does not name '{case.name}'"
    return ""


@pytest.mark.parametrize("kind", ["study", "table"])
@pytest.mark.parametrize(
    "numbers", [range(0, 100, 7), pytest.param(range(100), marks=pytest.mark.campaign)], ids=["some", "all"]
)
def test_a_misspelt_file_is_told_where_and_what(kind: str, numbers: range, tmp_path: Path) -> None:
    make = {"study": study, "table": table}[kind]
    wrong = []
    for number in numbers:
        case = make(number)
        code, said = told(tmp_path, case, kind)
        if lacks := wrong_with(case, code, said, kind):
            wrong.append(f"{kind} {number} ({case.wrote!r}) {lacks}: {said}")
    assert wrong == []


def main() -> int:
    """Every case with what it is told. Exit code 1: something is missing in one of them."""
    bad = 0
    for kind, make in (("study", study), ("table", table)):
        for number in range(100):
            case = make(number)
            with tempfile.TemporaryDirectory() as folder:
                code, said = told(Path(folder), case, kind)
            lacks = wrong_with(case, code, said, kind)
            bad += bool(lacks)
            print(f"--- {kind} {number}: {lacks or 'fine'} (exit code {code})\n{said}", end="")
    print(f"{bad} of 200 lack something")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
