"""Who may import what: the table of the architecture, read from the syntax tree and seen in a fresh process.

Each rule is a function from sources to sentences about violations, so that it can be shown to catch a planted
one.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
BASE = ("harness.errors", "harness.spec")  # everybody may import them; they import only each other
ROOT_MODULES = ("harness.cli", "harness.commands", "harness.api", "harness.__main__")  # may import all
MAY_IMPORT = {  # package -> packages of the harness, besides itself
    "study": frozenset(),
    "runs": frozenset({"study"}),
    "tricks": frozenset(),
    "models": frozenset(),
    "data": frozenset(),
    "plugins": frozenset({"study", "tricks", "models", "data", "runs"}),
    "scripts": frozenset({"study", "runs"}),
    "training": frozenset({"study", "tricks", "models", "data", "runs", "plugins", "scripts"}),
    "scheduling": frozenset({"study", "runs"}),
    "slurm": frozenset({"study", "runs", "scheduling"}),
    "tracking": frozenset({"study", "runs"}),
    "analysis": frozenset({"study"}),
    "reporting": frozenset({"study", "runs", "analysis"}),
    "results": frozenset({"study"}),
}
EVERY_PACKAGE = frozenset(MAY_IMPORT)
ALSO_ALLOWED = {  # module -> one module of another package: what imports torchvision, what reads a CSV
    "harness.models.zoo": "harness.data.torchvision_import",
    "harness.data.tables": "harness.results.lines",
}
PLACES = {  # third-party package -> the only packages or modules of the harness that may import it
    "numpy": EVERY_PACKAGE,
    "yaml": {"study"},
    "pyDOE3": {"study"},
    "torch": {"tricks", "models", "data", "plugins", "training"},
    "torchvision": {"harness.data.torchvision_import"},
    "timm": {"harness.models.zoo"},  # an optional dependency
    "huggingface_hub": {"harness.models.zoo"},  # where timm keeps its weights
    "safetensors": {"training"},
    "PIL": {"data"},
    "simplejpeg": {"data"},
    "pyarrow": {"harness.data.huggingface"},
    "submitit": {"slurm"},
    "mlflow": {"tracking"},
    "scipy": {"analysis"},
    "pandas": {"tracking", "analysis", "reporting", "results"},
    "matplotlib": {"reporting"},
    "jinja2": {"reporting"},
    "markupsafe": {"reporting"},
    "typst": {"reporting"},
    "pikepdf": {"reporting"},
    "rich": set(),  # the root only
    "shtab": set(),
    # Beside the root: files of weights hold what the scripts that wrote them were called with.
    "argparse": {"harness.training.weights"},
}
HEAVY = {
    "torch",
    "torchvision",
    "timm",
    "mlflow",
    "matplotlib",
    "scipy",
    "pandas",
    "typst",
    "pikepdf",
    "jinja2",
}
TORCH_AT_THE_TOP = {
    "models",
    "data",
    "plugins",
    "training",
}  # elsewhere only inside a function or for the type checker


@dataclass(frozen=True)
class Source:
    """One module: its dotted name and its syntax tree."""

    module: str
    tree: ast.Module
    is_package: bool = False

    @property
    def package(self) -> str:
        """The package of the harness; empty for `harness` itself and modules right below it."""
        parts = self.module.split(".")
        return parts[1] if len(parts) > 2 or (self.is_package and len(parts) == 2) else ""

    @property
    def is_root(self) -> bool:
        return self.module == "harness" or any(_inside(self.module, root) for root in ROOT_MODULES)

    @property
    def is_base(self) -> bool:
        return self.module in BASE


@dataclass(frozen=True)
class Import:
    """One imported name. `lazy`: inside a function; `typing_only`: under TYPE_CHECKING."""

    target: str
    line: int
    lazy: bool
    typing_only: bool


def planted(module: str, text: str) -> Source:
    return Source(module, ast.parse(text))


@cache
def sources() -> list[Source]:
    found = []
    for path in sorted((REPOSITORY / "harness").rglob("*.py")):
        parts = list(path.relative_to(REPOSITORY).with_suffix("").parts)
        is_package = parts[-1] == "__init__"
        found.append(
            Source(".".join(parts[: -1 if is_package else None]), ast.parse(path.read_text()), is_package)
        )
    return found


def _inside(module: str, package: str) -> bool:
    return module == package or module.startswith(package + ".")


@cache
def imports(source: Source) -> list[Import]:
    """Every import of a module, also in functions, under TYPE_CHECKING and by import_module("a.literal")."""
    found = []
    pending: list[tuple[ast.AST, bool, bool]] = [(source.tree, False, False)]
    while pending:
        node, lazy, typing_only = pending.pop()
        found += [Import(target, node.lineno, lazy, typing_only) for target in _targets(node, source)]
        lazy = lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        guarded = node.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) else []
        for child in ast.iter_child_nodes(node):
            pending.append((child, lazy, typing_only or child in guarded))
    return found


def _targets(node: ast.AST, source: Source) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = source.module.split(".")
            above = parts[: len(parts) - node.level + source.is_package]
            base = ".".join([*above, *([base] if base else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        called = getattr(node.func, "attr", None) or getattr(node.func, "id", None)
        if called in ("import_module", "__import__"):
            return [str(node.args[0].value)]
    return []


def outside_the_architecture(all_sources: Iterable[Source]) -> list[str]:
    """Imports between packages of the harness that the table does not allow, and modules in no package."""
    wrong = []
    for source in all_sources:
        if source.is_root:
            continue
        if source.package not in MAY_IMPORT and not source.is_base:
            wrong.append(f"{source.module} is in no package of the architecture")
            continue
        for each in imports(source):
            if not _inside(each.target, "harness") or each.target in ("harness", "harness.__version__"):
                continue
            if _inside(each.target, ALSO_ALLOWED.get(source.module, each.target + ".")):
                continue
            if any(_inside(each.target, base) for base in BASE):
                continue
            package = each.target.split(".")[1]
            if source.is_base or (package != source.package and package not in MAY_IMPORT[source.package]):
                wrong.append(f"{source.module}:{each.line} may not import {each.target}")
    return wrong


def tricks_that_know_more_than_the_base(all_sources: Iterable[Source]) -> list[str]:
    """A file that defines a trick imports nothing of the harness but `harness.tricks.base`."""
    wrong = []
    for source in all_sources:
        classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
        is_trick = any(ast.unparse(base).endswith("Trick") for node in classes for base in node.bases)
        if source.package != "tricks" or not is_trick:
            continue
        for each in imports(source):
            if _inside(each.target, "harness") and not _inside(each.target, "harness.tricks.base"):
                wrong.append(f"{source.module}:{each.line} is a trick and may not import {each.target}")
    return wrong


def third_party_out_of_place(all_sources: Iterable[Source]) -> list[str]:
    """Third-party packages outside their only place, and those that are in no list at all."""
    wrong = []
    for source in all_sources:
        for each in imports(source):
            name = each.target.split(".")[0]
            if name == "harness" or (name in sys.stdlib_module_names and name not in PLACES):
                continue
            if name not in PLACES:
                wrong.append(
                    f"{source.module}:{each.line} imports {name}, which is in no list of dependencies"
                )
            elif source.is_root and name != "torchvision":
                continue
            elif source.package not in PLACES[name] and source.module not in PLACES[name]:
                wrong.append(f"{source.module}:{each.line} is not the place for {name}")
    return wrong


def heavy_at_the_top(all_sources: Iterable[Source]) -> list[str]:
    """torch at the top outside models, data, plugins and training; anything heavy at the top of the root."""
    wrong = []
    for source in all_sources:
        banned = HEAVY if source.is_root else set() if source.package in TORCH_AT_THE_TOP else {"torch"}
        for each in imports(source):
            if each.target.split(".")[0] in banned and not each.lazy and not each.typing_only:
                wrong.append(f"{source.module}:{each.line} imports {each.target} when it is imported")
    return wrong


def circles(all_sources: Iterable[Source], *, between_packages: bool) -> list[str]:
    """An import circle between packages, or between modules; lazy imports count, and type-only ones.

    `harness` itself is left out: everybody may ask it for the version, and it names the Python API.
    """
    known = {source.module: source for source in all_sources if source.module != "harness"}
    graph: dict[str, set[str]] = {}
    for source in known.values():
        for each in imports(source):
            target = _module_of(each.target, known)
            if target is None or target.module == source.module:
                continue
            ends = (source.package, target.package) if between_packages else (source.module, target.module)
            if all(ends) and ends[0] != ends[1]:
                graph.setdefault(ends[0], set()).add(ends[1])
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


def _module_of(target: str, known: Mapping[str, Source]) -> Source | None:
    while target and target not in known:
        target = target.rpartition(".")[0]
    return known.get(target)


RULES = {
    "only the allowed packages": outside_the_architecture,
    "tricks know only the base": tricks_that_know_more_than_the_base,
    "third-party packages in their place": third_party_out_of_place,
    "nothing heavy at import time": heavy_at_the_top,
    "no circle between packages": lambda found: circles(found, between_packages=True),
    "no circle between modules": lambda found: circles(found, between_packages=False),
}


@pytest.mark.parametrize("rule", RULES)
def test_the_harness_keeps_the_rule(rule):
    assert RULES[rule](sources()) == []


def test_every_package_of_the_table_is_read():
    inside = [source for source in sources() if not source.is_root and not source.is_base]
    assert {source.package for source in inside} == EVERY_PACKAGE
    assert {source.module for source in sources() if source.is_base} == set(BASE)


def test_every_third_party_package_with_a_place_is_a_declared_dependency():
    import tomllib

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *project["optional-dependencies"]["timm"]]
    lines += project["optional-dependencies"]["huggingface"]
    declared = {line.split(">")[0].split("=")[0].lower() for line in lines}
    of_another_name = {"pil": "pillow", "yaml": "pyyaml"}
    wanted = {of_another_name.get(name.lower(), name.lower()) for name in PLACES if name != "argparse"}
    assert wanted - declared == set()


@pytest.mark.parametrize(
    ("rule", "module", "text"),
    [
        ("only the allowed packages", "harness.spec", "from harness.tricks.base import Trick"),
        ("only the allowed packages", "harness.data.augment", "import harness.models"),
        ("only the allowed packages", "harness.models.resnet", "from harness import data"),
        ("only the allowed packages", "harness.models.resnet", "from ..data import base"),
        ("only the allowed packages", "harness.analysis.fit", "def f():\n    import harness.reporting"),
        ("only the allowed packages", "harness.analysis.fit", "import_module('harness.tracking')"),
        (
            "only the allowed packages",
            "harness.study.a",
            "if TYPE_CHECKING:\n    from harness.data import base",
        ),
        ("only the allowed packages", "harness.spec", "from harness.study.plan import Plan"),
        ("only the allowed packages", "harness.extra.module", "x = 1"),
        ("only the allowed packages", "harness.extra", "x = 1"),
        (
            "tricks know only the base",
            "harness.tricks.cutmix",
            "import harness.tricks.mixup\nclass C(Trick): ...",
        ),
        ("third-party packages in their place", "harness.spec", "import torch"),
        ("third-party packages in their place", "harness.data.sets", "from torchvision import datasets"),
        ("third-party packages in their place", "harness.cli", "def f():\n    import torchvision"),
        ("third-party packages in their place", "harness.training.loop", "from mlflow import tracking"),
        ("third-party packages in their place", "harness.reporting.forest", "from scipy import stats"),
        ("third-party packages in their place", "harness.models.resnet", "import argparse"),
        ("third-party packages in their place", "harness.models.resnet", "import timm"),
        ("nothing heavy at import time", "harness.tricks.mixup", "import torch"),
        ("nothing heavy at import time", "harness.tricks.mixup", "class A:\n    from torch import nn"),
        ("nothing heavy at import time", "harness.cli", "try:\n    import mlflow\nexcept ImportError: ..."),
        ("nothing heavy at import time", "harness.commands.run", "import pandas as pd"),
    ],
)
def test_the_rule_catches_a_planted_violation(rule, module, text):
    assert len(RULES[rule]([planted(module, text)])) == 1


def test_what_is_allowed_is_not_a_violation():
    allowed = [
        planted("harness.tricks.mixup", "def f():\n    import torch\nfrom harness.tricks.base import Trick"),
        planted("harness.tricks.ema", "if TYPE_CHECKING:\n    from torch import nn\nclass E(Trick): ..."),
        planted("harness.training.loop", "import torch\nfrom harness.spec import RunSpec"),
        planted("harness.models.entry", "from harness.errors import unknown"),
        planted("harness.commands.run", "from harness.tracking import Store\ndef f():\n    import mlflow"),
        planted("harness.data.sets", "from harness.data.torchvision_import import torchvision"),
    ]
    assert [wrong for rule in RULES.values() for wrong in rule(allowed)] == []


def test_circles_are_caught_between_packages_and_between_modules():
    packages = [planted("harness.a.x", "import harness.b.y"), planted("harness.b.y", "import harness.a.z")]
    packages.append(planted("harness.a.z", ""))
    found = circles(packages, between_packages=True)
    assert found in (["a -> b -> a"], ["b -> a -> b"])
    assert circles(packages, between_packages=False) == []
    modules = [
        planted("harness.a.x", "def f():\n    from harness.a import y"),
        planted("harness.a.y", "from harness.a.x import f"),
    ]
    assert len(circles(modules, between_packages=False)) == 1
    modules[0] = planted("harness.a.x", "if TYPE_CHECKING:\n    from harness.a import y")
    assert len(circles(modules, between_packages=False)) == 1
    assert circles(modules, between_packages=True) == []


def heavy_modules_after_importing(names: Iterable[str]) -> str:
    """Those of HEAVY that a fresh process has loaded after it has imported `names`, or why it could not."""
    code = (
        "import importlib, sys\n"
        f"for name in {list(names)!r}: importlib.import_module(name)\n"
        f"print(*sorted({HEAVY!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return done.stderr or done.stdout.strip()


@pytest.mark.parametrize(
    "package", ["tricks", "models", "data", "plugins", "runs", "scheduling", "slurm", "tracking"]
)
def test_importing_the_package_loads_nothing_heavy(package):
    assert heavy_modules_after_importing([f"harness.{package}"]) == ""


@pytest.mark.parametrize("package", ["study", "runs"])
def test_importing_all_of_the_package_loads_nothing_heavy(package):
    assert heavy_modules_after_importing(each.module for each in sources() if each.package == package) == ""


def test_a_heavy_import_is_seen_in_a_fresh_process():
    assert heavy_modules_after_importing(["scipy"]) == "scipy"
    assert "ModuleNotFoundError" in heavy_modules_after_importing(["harness.no_such_module"])


@pytest.mark.campaign
def test_runs_are_trained_where_pyyaml_is_missing():
    """A machine that is lent for training has torch and numpy; the study was read elsewhere."""
    code = "import sys; sys.modules['yaml'] = None; import harness.training.run, harness.scheduling.workers"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
