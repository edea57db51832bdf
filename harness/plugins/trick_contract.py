"""What every trick must keep, the harness's own and the user's, tried on the bench in about a second."""

from __future__ import annotations

import dataclasses
import io
import re
import typing
from collections.abc import Iterator
from itertools import permutations

import torch

from harness.plugins.bench import (
    Broken,
    Check,
    Training,
    Unwell,
    batch,
    bits,
    context,
    net,
    no_global_randomness,
    recipe,
    require,
)
from harness.tricks import TRICKS
from harness.tricks.base import Batch, Trick, hooks_of
from harness.tricks.build import LABELS, card_text, describe, instantiate, parse


def settings(trick: type[Trick]) -> Iterator[Trick]:
    """The trick with its defaults, and with each other choice of an option that has a few."""
    yield trick()
    hints = typing.get_type_hints(trick)
    for option, default in describe(trick)["options"].items():
        choices = (True, False) if isinstance(default, bool) else typing.get_args(hints[option])
        yield from (instantiate(trick, {option: choice}) for choice in choices if choice != default)


def does_something(trick: Trick) -> None:
    """It defines a hook, names an arm that the run needs, or observes several networks."""
    does = hooks_of(trick) or trick.arms or trick.member_counts() != (1,)
    require(bool(does), "it does nothing of these", "define one of the hooks in harness/tricks/base.py")


def options_are_frozen(trick: Trick) -> None:
    """Its options are fields with defaults of a frozen dataclass, and are described."""
    about = describe(type(trick))
    for option in trick.said_if_set:
        require(
            option in about["options"], f"said_if_set names no option: {option}", "name fields of the class"
        )
    for option in about["options"]:
        try:
            setattr(trick, option, about["options"][option])
        except dataclasses.FrozenInstanceError:
            continue
        raise Broken(f"option {option} can be changed", "write @dataclass(frozen=True, kw_only=True)")


def off_is_bit_identical(trick: Trick) -> None:
    """A run without it is the same bits before and after it was used."""
    before = bits(Training([]).make_steps(3).model)
    Training([trick]).make_steps(1)
    require(
        bits(Training([]).make_steps(3).model) == before,
        "a run without it changed after it was used once in the same process",
        "do not change modules, classes or global settings; return a new value from the hook",
    )


def recipe_is_a_function(trick: Trick) -> None:
    """Editing a recipe leaves the given one as it is, and gives the same one every time."""
    given = recipe()
    first = trick.edit_recipe(given)
    require(given == recipe(), "edit_recipe changed the recipe it was given", "use dataclasses.replace")
    require(
        trick.edit_recipe(recipe()) == first,
        "the same recipe came out different the second time",
        "compute it from the recipe and the options alone",
    )


def same_seed_same_bits(trick: Trick) -> None:
    """Batches depend on the given generator only: same seed, same bits."""

    def edited(seed: int) -> list[bytes]:
        with no_global_randomness():
            return bits(trick.edit_batch(batch(), torch.Generator().manual_seed(seed), given))

    given = context()
    try:
        first, again = edited(1), edited(1)
    except Unwell as error:
        raise Broken(str(error), "draw with torch.rand(..., generator=rng) and the like") from None
    require(first == again, "the same seed gave two batches", "draw every random number from `rng`")


def batches_keep_their_form(trick: Trick) -> None:
    """Batches keep shapes, types and targets that sum to 1, and are not changed in place."""
    for size in (1, 5, 6):
        given = batch(size=size)
        before = bits(given)
        out = trick.edit_batch(given, torch.Generator().manual_seed(3), context())
        kind = f"edit_batch returned {type(out).__name__}"
        require(isinstance(out, Batch), kind, "return Batch(images, targets)")
        for name, was, now in zip(Batch._fields, given, out, strict=True):
            same = was.shape == now.shape and was.dtype == now.dtype
            mend = "return tensors of the shape and type of those given"
            require(same, f"{name} {tuple(was.shape)} became {tuple(now.shape)} {now.dtype}", mend)
        sums = out.targets.sum(dim=1)
        close = torch.allclose(sums, torch.ones(size), atol=1e-5)
        require(
            close, f"targets sum to {sums.tolist()}", "each row of targets is a distribution over classes"
        )
        require(bits(given) == before, "the given batch was changed in place", "compute new tensors")


def per_image_is_true(trick: Trick) -> None:
    """A trick that says it is per image edits a part of a batch as it edits the whole."""
    if not trick.per_image:
        return
    given = batch(size=6)

    def edited(part: slice) -> Batch:
        chosen = Batch(*(each[part] for each in given))
        return trick.edit_batch(chosen, torch.Generator().manual_seed(3), context())

    whole, part = edited(slice(None)), edited(slice(3, 6))
    require(
        bits(Batch(*(each[3:6] for each in whole))) == bits(part),
        "per_image is True, but half of a batch is edited otherwise than within the whole",
        "leave `per_image` False where images are mixed or a draw depends on the size of the batch",
    )


def trains_and_repeats(trick: Trick) -> None:
    """Three steps are finite and repeat bit for bit."""
    try:
        runs = [Training([trick]).make_steps(3) for _ in range(2)]
    except Unwell as error:
        raise Broken(
            str(error), "guard logarithms, divisions and roots, and detach nothing that trains"
        ) from None
    same = bits(runs[0].eval_model()) == bits(runs[1].eval_model()) and runs[0].losses == runs[1].losses
    require(same, "two equal runs ended with different weights", "draw every random number from `rng`")


def evaluation_changes_nothing(trick: Trick) -> None:
    """Evaluating leaves the training network as it is."""
    run = Training([trick]).make_steps(1)
    before = bits(run.model)
    trick.edit_prediction(run.eval_model().eval())(batch().images)
    require(bits(run.model) == before, "its weights changed", "let edit_eval_model return a copy")


def survives_save_and_load(trick: Trick) -> None:
    """Six steps are the bits of three steps, a checkpoint, and three more."""
    whole = Training([trick]).make_steps(6)
    file = io.BytesIO()
    torch.save(Training([trick]).make_steps(3).checkpoint(), file)
    file.seek(0)
    second = Training([trick])
    second.resume(torch.load(file, weights_only=True))
    require(
        bits(second.make_steps(3).eval_model()) == bits(whole.eval_model()),
        "the resumed run ended elsewhere",
        "keep what it remembers in new_state, with everything in state_dict and load_state_dict",
    )


def composes(trick: Trick) -> None:
    """It works beside each of the harness's own tricks unless it declares a conflict."""
    for name, other_class in TRICKS.items():
        if name == trick.name or name in trick.conflicts or trick.name in other_class.conflicts:
            continue
        other = other_class()
        if not _works_on_the_bench(other):
            continue
        for pair in permutations((trick, other)):
            try:
                run = Training(pair).make_steps(1)
            except Exception as error:
                mend = f"make it work, or declare conflicts: ClassVar[tuple[str, ...]] = ('{name}',)"
                raise Broken(f"with {name}: {type(error).__name__}: {error}", mend) from None
            finite = all(torch.isfinite(value).all() for value in run.eval_model().parameters())
            require(
                finite, f"with {name} weights are not finite", "declare the conflict, or guard the numbers"
            )


def _works_on_the_bench(trick: Trick) -> bool:
    """Some tricks refuse the bench's recipe or network, because they are about another family."""
    try:
        trick.edit_recipe(recipe())
        trick.edit_model(net())
    except ValueError:
        return False
    return True


def conflicts_are_known(trick: Trick) -> None:
    """The conflicts that it declares are tricks, and not itself."""
    for other in trick.conflicts:
        require(other != trick.name, "it conflicts with itself", "take its own name out of conflicts")
        require(other in TRICKS, f"there is no trick '{other}'", f"one of: {', '.join(sorted(TRICKS))}")


def card_is_complete(trick: Trick) -> None:
    """Its card has every line: Paper, Equation, Acts on, Defaults, Differs."""
    text = card_text(type(trick))
    for label in LABELS:
        there = re.search(rf"^\s*{label}:[ \t]*\S", text, re.MULTILINE)
        mend = f"write '{label}: ...' in the docstring of the class or of the file"
        require(there is not None, f"the card has no line '{label}:'", mend)
    parse(text)


def card_names_hooks_and_defaults(trick: Trick) -> None:
    """Its card names the hooks it defines and every option with its default."""
    found = parse(card_text(type(trick)))
    hooks = ", ".join(hook.removeprefix("edit_") for hook in hooks_of(trick)) or "none"
    words = [word.strip() for word in re.sub(r"\([^)]*\)", "", found["Acts on"]).split(",")]
    require(
        [f"edit_{word}" for word in words if word != "none"] == list(hooks_of(trick)),
        f"'Acts on' says {', '.join(words)}, the trick defines {hooks}",
        f"write 'Acts on: {hooks}', each with what it changes there in brackets",
    )
    for option, default in trick.options().items():
        says = re.search(rf"\b{option} = {re.escape(str(default))}(?![\w.])", found["Defaults"])
        mend = f"write '{option} = {default}' and where it comes from after 'Defaults:'"
        require(says is not None, f"'Defaults' does not name {option} = {default}", mend)


IN_EVERY_SETTING: tuple[Check, ...] = (
    off_is_bit_identical,
    recipe_is_a_function,
    same_seed_same_bits,
    batches_keep_their_form,
    per_image_is_true,
    trains_and_repeats,
    evaluation_changes_nothing,
    survives_save_and_load,
)
ONCE: tuple[Check, ...] = (
    does_something,
    options_are_frozen,
    conflicts_are_known,
    composes,
    card_is_complete,
    card_names_hooks_and_defaults,
)
