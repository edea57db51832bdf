"""The size budget and what no file of the harness may do, read from the syntax tree.

Each rule is a function from one source text to sentences about violations, so that it can be shown to catch
a planted one. Who may import what is in test_imports.py.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import harness

REPOSITORY = Path(__file__).parents[1]
MOST_LINES_PER_FILE = 600
MOST_LINES_PER_FUNCTION = 40
MOST_PARAMETERS = 6
Function = ast.FunctionDef | ast.AsyncFunctionDef

UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
PICKLE_OVER_A_PIPE = {
    "harness/scheduling/workers.py"
}  # messages between a controller and the workers it started; never a file
SHELLS = {"os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput"}


def long_files(text: str, path: str) -> Iterator[str]:
    lines = len(text.splitlines())
    if lines > MOST_LINES_PER_FILE:
        yield f"{path} has {lines} lines, more than {MOST_LINES_PER_FILE}"


def long_functions(text: str, path: str) -> Iterator[str]:
    """From `def` to the last line, docstring and comments included; decorators are not counted."""
    for node in functions(text):
        lines = node.end_lineno - node.lineno + 1
        if lines > MOST_LINES_PER_FUNCTION:
            yield f"{path}:{node.lineno} {node.name} has {lines} lines, more than {MOST_LINES_PER_FUNCTION}"


def wide_functions(text: str, path: str) -> Iterator[str]:
    """Named parameters as ruff's PLR0913 counts them: without self and cls, *args, **kwargs and _unused."""
    for node in functions(text):
        arguments = node.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
        count = sum(not name.startswith("_") for name in names[names[:1] in (["self"], ["cls"]) :])
        if count > MOST_PARAMETERS:
            yield f"{path}:{node.lineno} {node.name} has {count} parameters, more than {MOST_PARAMETERS}"


def work_at_import(text: str, path: str) -> Iterator[str]:
    """Calls, loops and context managers at the top of a module (but below `if __name__ == "__main__"`)."""
    for node in parse(text).body:
        is_call = isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await)
        if is_call or isinstance(node, ast.For | ast.While | ast.With):
            yield f"{path}:{node.lineno} does something when it is imported: {ast.unparse(node)[:60]}"


def unpickling(text: str, path: str) -> Iterator[str]:
    """Whatever runs code from data: pickle and its kin, torch.load and numpy.load with unsafe settings."""
    for node in nodes(text):
        if isinstance(node, ast.Import | ast.ImportFrom):
            from_module = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names = from_module or [alias.name for alias in node.names]
            if path not in PICKLE_OVER_A_PIPE and UNPICKLERS & {name.split(".")[0] for name in names}:
                yield f"{path}:{node.lineno} imports a module that runs code from data: {ast.unparse(node)}"
    for node, called in calls(text):
        if called == "torch.load" and not sets(node, "weights_only", True):
            yield f"{path}:{node.lineno} torch.load without weights_only=True"
        if sets(node, "allow_pickle", True):
            yield f"{path}:{node.lineno} {called} with allow_pickle=True"
        if called.endswith((".read_pickle", "pickle.load", ".Unpickler")):
            yield f"{path}:{node.lineno} {called} reads a pickle"


def unsafe_yaml(text: str, path: str) -> Iterator[str]:
    """yaml.load and its kin; typ="unsafe" of ruamel.yaml, should it come back."""
    for node, called in calls(text):
        unsafe = called in ("yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load")
        if unsafe or sets(node, "typ", "unsafe"):
            yield f"{path}:{node.lineno} {called} builds objects that a file names"


def shells(text: str, path: str) -> Iterator[str]:
    """shell=True, os.system and their kin, eval and exec."""
    for node, called in calls(text):
        if called in SHELLS or called in ("eval", "exec"):
            yield f"{path}:{node.lineno} calls {called}"
        if any(each.arg == "shell" and not is_constant(each.value, False) for each in node.keywords):
            yield f"{path}:{node.lineno} {called} through a shell"


@cache
def parse(text: str) -> ast.Module:
    return ast.parse(text)


@cache
def nodes(text: str) -> list[ast.AST]:
    return list(ast.walk(parse(text)))


def functions(text: str) -> Iterator[Function]:
    return (node for node in nodes(text) if isinstance(node, Function))


@cache
def calls(text: str) -> list[tuple[ast.Call, str]]:
    """Every call, with the dotted name of what is called: the full name where it was imported by another."""
    full = {}
    for node in nodes(text):
        if isinstance(node, ast.Import):
            full.update({alias.asname: alias.name for alias in node.names if alias.asname})
        elif isinstance(node, ast.ImportFrom):
            full.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    found = []
    for node in nodes(text):
        if isinstance(node, ast.Call):
            first, dot, rest = ast.unparse(node.func).partition(".")
            found.append((node, full.get(first, first) + dot + rest))
    return found


def sets(call: ast.Call, keyword: str, value: object) -> bool:
    return any(each.arg == keyword and is_constant(each.value, value) for each in call.keywords)


def is_constant(node: ast.expr, value: object) -> bool:
    return (isinstance(node, ast.Constant) and node.value is value) or ast.unparse(node) == repr(value)


RULES: dict[str, Callable[[str, str], Iterator[str]]] = {
    "files are short": long_files,
    "functions are short": long_functions,
    "functions take few parameters": wide_functions,
    "importing does nothing": work_at_import,
    "nothing runs code from data": unpickling,
    "YAML builds no objects": unsafe_yaml,
    "nothing reaches a shell": shells,
}


@cache
def sources() -> dict[str, str]:
    paths = sorted((REPOSITORY / "harness").rglob("*.py"))
    return {path.relative_to(REPOSITORY).as_posix(): path.read_text() for path in paths}


@pytest.mark.parametrize("rule", RULES)
def test_the_harness_keeps_the_rule(rule):
    assert [wrong for path, text in sources().items() for wrong in RULES[rule](text, path)] == []


def test_the_files_that_are_read_are_there():
    assert set(sources()) >= {"harness/__init__.py", "harness/spec.py", "harness/models/resnet.py"}
    assert set(sources()) >= PICKLE_OVER_A_PIPE


LONG_BODY = "def f():\n" + "    x = 1\n" * MOST_LINES_PER_FUNCTION


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("files are short", "x = 1\n" * (MOST_LINES_PER_FILE + 1)),
        ("functions are short", LONG_BODY),
        (
            "functions are short",
            "class A:\n" + LONG_BODY.replace("\n", "\n    ").replace("def", "    async def", 1),
        ),
        ("functions take few parameters", "def f(a, b, c, d, e, f, g): ..."),
        ("functions take few parameters", "def f(a, b, /, c, *rest, d, e, f, g, **more): ..."),
        ("functions take few parameters", "class A:\n    def f(self, a, b, c, d, e, f, g): ..."),
        ("importing does nothing", "print('hello')"),
        ("importing does nothing", "for x in range(3):\n    pass"),
        ("importing does nothing", "with open('f') as f:\n    x = f.read()"),
        ("nothing runs code from data", "import pickle"),
        ("nothing runs code from data", "def f():\n    from pickle import loads"),
        ("nothing runs code from data", "import joblib.memory"),
        ("nothing runs code from data", "torch.load('x.pt')"),
        ("nothing runs code from data", "from torch import load\nload('x.pt', weights_only=False)"),
        ("nothing runs code from data", "np.load('x.npy', allow_pickle=True)"),
        ("nothing runs code from data", "pd.read_pickle('x')"),
        ("YAML builds no objects", "yaml.load(text)"),
        ("YAML builds no objects", "from yaml import load\nload(text)"),
        ("YAML builds no objects", "YAML(typ='unsafe')"),
        ("nothing reaches a shell", "subprocess.run('ls', shell=True)"),
        ("nothing reaches a shell", "subprocess.run('ls', shell=flag)"),
        ("nothing reaches a shell", "from os import system\nsystem('ls')"),
        ("nothing reaches a shell", "eval('1')"),
    ],
)
def test_the_rule_catches_a_planted_violation(rule, text):
    assert len(list(RULES[rule](text, "harness/planted.py"))) == 1


def test_pickle_on_a_pipe_is_allowed_to_the_workers_alone_and_never_from_a_file():
    for path in PICKLE_OVER_A_PIPE:
        assert list(unpickling("import pickle\npickle.loads(message)", path)) == []
        assert len(list(unpickling("import pickle\npickle.load(file)", path))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n" * MOST_LINES_PER_FILE,
        LONG_BODY.removesuffix("    x = 1\n"),
        "class A:\n    def f(self, a, b, c, d, e, f, *rest, _unused=0, **more): ...",
        "if __name__ == '__main__':\n    main()",
        "torch.load('x.pt', weights_only=True)\n".join(["def f():\n    ", ""]),
        "def f(model, path):\n    return json.load(path), model.eval(), subprocess.run(['ls'], shell=False)",
        "import json\nYAML = dict(typ='safe')",
    ],
)
def test_what_is_allowed_is_not_a_violation(text):
    assert [wrong for rule in RULES.values() for wrong in rule(text, "harness/planted.py")] == []


def test_the_citation_names_this_version():
    cited = re.search(r"^version: (.+)$", (REPOSITORY / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited is not None
    assert cited[1] == harness.__version__


def test_the_licence_is_apache_2():
    text = (REPOSITORY / "LICENSE").read_text()
    assert "Apache License" in text.splitlines()[1]
    assert "END OF TERMS AND CONDITIONS" in text


CLOCKS = {f"time.{name}" for name in ("monotonic", "perf_counter", "process_time", "thread_time", "time")}
LONGEST_SLEEP_S = 0.5  # between two looks


def seconds_counted(text: str, path: str) -> Iterator[str]:
    """What fails on a slow machine: so many seconds as a limit, or slept through in place of an event."""
    for call, name in calls(text):
        number = call.args[0] if name == "time.sleep" and call.args else None
        if isinstance(number, ast.Constant) and number.value > LONGEST_SLEEP_S:
            yield f"{path}:{call.lineno} sleeps instead of waiting for an event: see tests/timing.py"
    for node in ast.walk(parse(text)):
        if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Lt | ast.LtE):
            is_number = isinstance(node.comparators[0], ast.Constant)
            if is_number and CLOCKS & {name for _, name in calls(ast.unparse(node.left))}:
                yield f"{path}:{node.lineno} has a limit in seconds: see tests/timing.py"
        made = decorated(node) if isinstance(node, ast.FunctionDef) else {}
        if "given" in made and "deadline=None" not in made.get("settings", ""):
            yield f"{path}:{node.lineno} has Hypothesis' limit of 200 ms: @settings(deadline=None)"


def decorated(function: ast.FunctionDef) -> dict[str, str]:
    """Name of each decorator that is a call -> the call."""
    made = [each for each in function.decorator_list if isinstance(each, ast.Call)]
    return {ast.unparse(each.func): ast.unparse(each) for each in made}


def test_no_test_counts_seconds():
    files = sorted((REPOSITORY / "tests").rglob("*.py"))
    texts = {str(path.relative_to(REPOSITORY)): path.read_text() for path in files}
    with_clocks = {path: text for path, text in texts.items() if "time." in text or "@given" in text}
    assert [wrong for path, text in with_clocks.items() for wrong in seconds_counted(text, path)] == []


@pytest.mark.parametrize(
    "text",
    [
        *("time.sleep(1)", "assert time.monotonic() - began_s < 5", "assert time.process_time() <= 0.3"),
        *("@given(x=1)\ndef test(): ...", "@settings(max_examples=9)\n@given(x=1)\ndef test(): ..."),
    ],
)
def test_a_planted_count_of_seconds_is_found(text):
    assert len(list(seconds_counted(text, "tests/test_planted.py"))) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("time.sleep(0.01)", "assert time.monotonic() < deadline_s", "assert time.monotonic() - a > 0.3"),
        "@settings(max_examples=9, deadline=None)\n@given(x=1)\ndef test(): ...",
    ],
)
def test_looking_again_and_least_times_are_allowed(text):
    assert list(seconds_counted(text, "tests/test_planted.py")) == []


# The ratchet: these numbers only go down. The lines that scripts/measure_house.py counts grow with features.

RATCHET = {
    "files in harness": 180,
    "import circles": 0,
    "public class names defined twice": 2,
    "files in a package, at most": 15,
    "imports, % of lines": 5.7,
}


def measure_house() -> Any:
    """The script that `make check` prints."""
    spec = importlib.util.spec_from_file_location(
        "measure_house", REPOSITORY / "scripts" / "measure_house.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.campaign
def test_the_house_does_not_get_more_tangled():
    now = measure_house().measured()
    assert {name: now[name] for name in RATCHET if now[name] > RATCHET[name]} == {}


def test_a_circle_a_double_name_and_a_full_package_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    house = measure_house()
    package = tmp_path / "harness" / "a"
    package.mkdir(parents=True)
    (package / "x.py").write_text("if TYPE_CHECKING:\n    from harness.a.y import Y\nclass X: ...\n")
    (package / "y.py").write_text("from harness.a.x import X\nclass Y: ...\nclass X: ...\n")
    monkeypatch.setattr(house, "ROOT", tmp_path)
    monkeypatch.setattr(house, "PACKAGE", tmp_path / "harness")
    monkeypatch.setattr(house, "files", functools.partial(house.files, tmp_path / "harness"))
    assert house.circles() == [{"harness.a.x", "harness.a.y"}]
    assert house.double_names() == {"X": 2}
    assert house.files_by_package() == {"a": 2}
