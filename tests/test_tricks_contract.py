"""What every trick of the table must keep; a new trick is tested by being in the table.

What users' tricks must keep as well is in harness/plugins/trick_contract.py, and is asked of every trick here
in tests/plugins/test_contract.py.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import re
import subprocess
import sys
import typing
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

import harness.tricks
from harness.tricks import TRICKS
from harness.tricks.base import HOOKS, Trick, hooks_of
from harness.tricks.build import card, describe, make
from tests.conftest import of_each
from tests.tricks import tiny

OF_EVALUATION = {"eval_crops", "eval_weights"}  # fields of a recipe that no training reads
NOT_TRICKS = {"__init__", "base", "build"}
ROOT = Path(__file__).parents[1]
SCALING = {"linear_lr_scaling", "higher_lr", "weaker_l2", "faster_decay", "weaker_distortion"}
POINTLESS_TOGETHER = (
    {"no_residual", "residual_scaling"},  # nothing is left to scale
    {"ensemble", "mixed_ensemble"},  # both say which networks are evaluated
)
IN_THIS_ORDER = {("large_batch", "linear_lr_scaling")}  # the second reads what the first sets
EVERY = of_each(make(name, {}) for name in TRICKS)


def _settings() -> list[Trick]:
    """Every trick with its defaults, and with each other choice of an option that has a few."""
    found = []
    for name, cls in TRICKS.items():
        found.append(make(name, {}))
        hints = typing.get_type_hints(cls)
        for option, default in describe(cls)["options"].items():
            choices = (True, False) if isinstance(default, bool) else typing.get_args(hints[option])
            found += [make(name, {option: choice}) for choice in choices if choice != default]
    return found


SETTINGS = of_each(_settings())


def test_hooks_are_a_closed_set() -> None:
    """A change here changes the contract with users' own tricks: it needs a decision note."""
    signatures = {hook: tuple(inspect.signature(getattr(Trick, hook)).parameters)[1:] for hook in HOOKS}
    assert signatures == {
        "edit_recipe": ("recipe",),
        "edit_model": ("model",),
        "edit_parameter_groups": ("groups", "model"),
        "edit_optimizer": ("optimizer", "state"),
        "edit_batch": ("batch", "rng", "context"),
        "edit_loss": ("loss", "context"),
        "edit_eval_model": ("model", "state"),
        "edit_prediction": ("predict",),
    }


def test_every_trick_of_every_chapter_is_in_the_table_under_its_own_name() -> None:
    chapters = {path.stem for path in Path(harness.tricks.__path__[0]).glob("*.py")} - NOT_TRICKS
    defined = [
        each
        for chapter in chapters
        for each in vars(import_module(f"harness.tricks.{chapter}")).values()
        if isinstance(each, type) and issubclass(each, Trick) and each is not Trick
    ]
    assert {each.name: each for each in defined} == dict(TRICKS)
    assert len(defined) == len(TRICKS)
    assert {cls.__module__ for cls in TRICKS.values()} == {f"harness.tricks.{each}" for each in chapters}


def test_every_trick_has_a_test_of_its_equation() -> None:
    """Beside its kin: some file of tests/tricks imports its class."""
    tested = {
        alias.name
        for path in (ROOT / "tests" / "tricks").glob("test_*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("harness.tricks.")
        for alias in node.names
    }
    assert {cls.__name__ for cls in TRICKS.values()} - tested == set()


def test_importing_the_table_the_builder_and_the_cards_loads_no_torch() -> None:
    code = (
        "import sys; from harness.tricks import TRICKS, build\n"
        "[(build.describe(t), build.make(n, {}), build.card(t)) for n, t in TRICKS.items()]\n"
        "print(sorted({'torch', 'numpy', 'mlflow', 'pandas'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@EVERY
def test_options_are_frozen_and_described(trick: Trick) -> None:
    about = describe(type(trick))
    assert trick.options() == about["options"]
    assert about["name"] == trick.name
    assert set(trick.said_if_set) <= set(about["options"])
    for option in about["options"]:
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(trick, option, about["options"][option])


@EVERY
def test_a_trick_does_something(trick: Trick) -> None:
    """It has a hook, or names an arm that the run needs, or observes several networks."""
    about = describe(type(trick))
    assert about["hooks"] or about["arms"] or trick.member_counts() != (1,)


@SETTINGS
def test_members_are_of_the_own_arm_and_of_each_named_one(trick: Trick) -> None:
    counts = trick.member_counts()
    assert all(type(count) is int and count >= 1 for count in counts)
    assert len(counts) == (1 + len(trick.arms) if trick.observes else 1)
    assert trick.observes or counts == (1,)


@SETTINGS
def test_an_observing_trick_costs_no_training(trick: Trick) -> None:
    """It edits how networks are evaluated, and nothing that a training reads; an acting trick does not."""
    before = tiny.full_recipe()
    after = trick.edit_recipe(before)
    changed = {
        f.name for f in dataclasses.fields(before) if getattr(after, f.name) != getattr(before, f.name)
    }
    if trick.observes:
        assert changed <= OF_EVALUATION
        assert not describe(type(trick))["acts_in_training"]
    else:
        assert not changed & OF_EVALUATION


@EVERY
def test_hooks_it_does_not_define_return_the_very_object_they_were_given(trick: Trick) -> None:
    defined = hooks_of(trick)
    for hook in HOOKS:
        arguments = [object() for _ in list(inspect.signature(getattr(Trick, hook)).parameters)[1:]]
        if hook not in defined:
            assert getattr(trick, hook)(*arguments) is arguments[0]


@SETTINGS
def test_recipe_only_tricks_say_so_and_others_act_in_training(trick: Trick) -> None:
    edited = trick.edit_recipe(tiny.full_recipe())
    acts_on_recipe = "edit_recipe" in hooks_of(trick)
    assert (edited != tiny.full_recipe()) == acts_on_recipe
    assert describe(type(trick))["acts_in_training"] == bool(set(hooks_of(trick)) - {"edit_recipe"})


@SETTINGS
def test_a_trick_sets_a_value_or_scales_one(trick: Trick) -> None:
    """Setting twice is setting once; scaling is not, and the tricks that scale are known by name."""
    once = trick.edit_recipe(tiny.full_recipe())
    assert (trick.edit_recipe(once) == once) == (trick.name not in SCALING)


@SETTINGS
def test_same_seed_same_bits_other_seed_other_bits(trick: Trick) -> None:
    def edited(seed: int) -> tuple[list[bytes], bool]:
        rng = torch.Generator().manual_seed(seed)
        fresh = rng.get_state()
        with tiny.no_global_randomness():
            out = trick.edit_batch(tiny.batch(), rng, context)
        return tiny.bits(out), not torch.equal(fresh, rng.get_state())

    context = tiny.context()
    (first, draws), (again, _), (other, _) = edited(1), edited(1), edited(2)
    assert first == again
    assert (first != other) == draws


@SETTINGS
def test_three_steps_are_finite_and_repeat_bit_for_bit(trick: Trick) -> None:
    runs = [tiny.Training([trick]) for _ in range(2)]
    for run in runs:
        for _ in range(3):
            run.step()
            assert all(torch.isfinite(gradient).all() for gradient in run.gradients)
            assert sum(gradient.abs().sum() for gradient in run.gradients) > 0
    assert all(map(_is_finite, runs[0].losses))
    assert runs[0].losses == runs[1].losses
    assert tiny.bits(runs[0].eval_model()) == tiny.bits(runs[1].eval_model())


def _is_finite(value: float) -> bool:
    return abs(value) < float("inf")


STATEFUL = [trick for trick in _settings() if tiny.Training([trick]).states[trick.name] is not None]


@of_each(STATEFUL)
def test_state_survives_save_and_load(trick: Trick) -> None:
    """Three steps, save, load into a fresh run, three steps: the bits of six steps without a break."""
    whole, first, second = (tiny.Training([trick]) for _ in range(3))
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    file = io.BytesIO()
    torch.save(first.checkpoint(), file)
    file.seek(0)
    second.resume(torch.load(file, weights_only=True))
    for _ in range(3):
        second.step()
    assert tiny.bits(second.eval_model()) == tiny.bits(whole.eval_model())
    assert tiny.bits(whole.eval_model()) != tiny.bits(first.eval_model())


TRAINING = {name for name, cls in TRICKS.items() if describe(cls)["acts_in_training"]} | {"fp16", "bf16"}


def _partners(name: str) -> list[str]:
    return [other for other in TRICKS if other != name and other not in TRICKS[name].conflicts]


@of_each(TRICKS)
def test_recipe_edits_compose_unless_they_conflict(first: str) -> None:
    """The order in a list does not matter, so that neither trick undoes the other, but where it is said."""
    for second in _partners(first):
        a, b = make(first, {}), make(second, {})
        forwards = b.edit_recipe(a.edit_recipe(tiny.full_recipe()))
        backwards = a.edit_recipe(b.edit_recipe(tiny.full_recipe()))
        in_order = {(first, second), (second, first)} & IN_THIS_ORDER
        assert (forwards == backwards) == (not in_order), second


@of_each(TRICKS)
def test_every_pair_trains_a_step_unless_it_conflicts(first: str) -> None:
    for second in _partners(first):
        if {first, second} & TRAINING:
            run = tiny.Training([make(first, {}), make(second, {})])
            before = tiny.bits(run.model)
            run.step()
            assert _is_finite(run.losses[0]), second
            assert tiny.bits(run.model) != before, second
            assert all(torch.isfinite(p).all() for p in run.eval_model().parameters()), second


@of_each(make(name, {}) for name in TRICKS if TRICKS[name].conflicts)
def test_a_declared_conflict_is_a_real_one(trick: Trick) -> None:
    """One would undo the other, one order gives other numbers, or one is refused after the other."""
    for name in trick.conflicts:
        other = make(name, {})
        if {trick.name, name} in POINTLESS_TOGETHER:
            continue
        forwards, backwards = (_edited(pair) for pair in ((trick, other), (other, trick)))
        assert forwards != backwards or forwards is None, name


def _edited(pair: tuple[Trick, Trick]) -> Any:
    try:
        return pair[1].edit_recipe(pair[0].edit_recipe(tiny.full_recipe()))
    except ValueError:
        return None


@EVERY
def test_conflicts_are_known_mutual_and_not_with_itself(trick: Trick) -> None:
    assert trick.name not in trick.conflicts
    for other in trick.conflicts:
        assert trick.name in TRICKS[other].conflicts


def _bibliography() -> dict[str, str]:
    text = (ROOT / "docs" / "references.bib").read_text(encoding="utf-8")
    entries = re.split(r"^@\w+\{", text, flags=re.MULTILINE)[1:]
    return {entry.partition(",")[0]: entry for entry in entries}


@EVERY
def test_the_card_is_complete_and_its_papers_are_in_the_bibliography(trick: Trick) -> None:
    found, bibliography = card(trick), _bibliography()
    assert all(text.strip() for text in found)
    assert found.citations
    for key in found.citations:
        assert key in bibliography
    for arxiv in re.findall(r"arXiv:(\S+?)[,;)\s]", found.paper + " "):
        eprint = re.compile(rf"eprint\s*=\s*\{{{re.escape(arxiv)}\}}")
        assert any(eprint.search(bibliography[key]) for key in found.citations), arxiv
    cited_anywhere = re.findall(r"\b[a-z]+\d{4}[a-z]+\b", " ".join(found))
    assert set(cited_anywhere) <= set(bibliography)


@EVERY
def test_the_card_names_the_hooks_and_every_default(trick: Trick) -> None:
    found = card(trick)
    words = [word.strip() for word in re.sub(r"\([^)]*\)", "", found.acts_on).split(",")]
    assert tuple(f"edit_{word}" for word in words if word != "none") == hooks_of(trick)
    for option, default in trick.options().items():
        assert re.search(rf"\b{option} = {re.escape(str(default))}(?![\w.])", found.defaults), option
    for option in trick.arms:
        assert re.search(rf"\b{option}, an arm of the study, is required", found.defaults), option
    if not trick.options():
        assert found.defaults.partition(";")[0] == "no options"
