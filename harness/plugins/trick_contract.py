"""What every trick must keep, the harness's own and the user's; the bench on which it is tried."""

from __future__ import annotations

import dataclasses
import io
import random
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import log_softmax, one_hot

from harness.models.half import EmulatedHalf
from harness.plugins.load import from_exception
from harness.spec import DataSpec, ModelSpec, Recipe
from harness.tricks import TRICKS
from harness.tricks.base import Batch, Context, Loss, State, Trick, hooks_of
from harness.tricks.build import LABELS, card_text, describe, instantiate, parse

# A recipe, a network and a training step small enough for a trick to be tried in milliseconds.


CLASSES = 5
DTYPES = {"fp32": None, "fp16": torch.float16, "bf16": torch.bfloat16}


class Unwell(Exception):
    """A step could not be made or its numbers are not finite; says why."""


# Every switch that a trick may turn, at a value that the trick changes; no real network has them all.
SWITCHES: Mapping[str, Any] = {
    "stem": "7x7",
    "stride_in": "1x1",
    "shortcut": "conv",
    "zero_gamma": False,
    "auxiliary": "none",
    "dropout": 0.4,
    "lrn": True,
    "norm": "none",
    "activation": "relu",
    "residual": True,
    "scale_a": 0.17,
    "scale_b": 0.10,
    "scale_c": 0.20,
    "factorized_7x7": False,
    "five": "5x5",
    "asymmetric": False,
    "grid": "other",
    "first_layer": "other",
}


def recipe(**changes: Any) -> Recipe:
    """A recipe on which every trick of the harness acts, whatever its options are."""
    full = Recipe(
        model=ModelSpec(name="everything", args=SWITCHES),
        data=DataSpec(name="fashion_mnist", resolution=8),
        batch_size=512,
        schedule="exponential",
        decay=0.96,
        decay_every=6.0,
        milestones=(),
        shuffle="shards",
        initialisation="other",
    )
    return dataclasses.replace(full, **changes)


def net(seed: int = 0) -> nn.Module:
    """Convolution, batch normalisation, linear layer: a parameter of every kind; same seed, same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, CLASSES),
        )


def batch(seed: int = 0, size: int = 6) -> Batch:
    """Random images with one-hot targets."""
    rng = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (size,), generator=rng)
    return Batch(torch.randn(size, 3, 8, 8, generator=rng), one_hot(labels, CLASSES).float())


def context() -> Context:
    """A context with a teacher: a fixed network of its own."""
    teacher = net(seed=99).eval().requires_grad_(False)
    return Context(classes=CLASSES, steps_per_epoch=2, total_steps=6, teacher=teacher)


def cross_entropy(output: Tensor, batch: Batch) -> Tensor:
    """Mean over the batch of -sum_k y_k log p_k, from logits (B, K)."""
    return -(batch.targets * log_softmax(output.float(), dim=1)).sum(dim=1).mean()


def named_groups(model: nn.Module, weight_decay: float = 1e-4) -> list[dict[str, Any]]:
    """Every parameter in one group, as a trick gets them."""
    return [{"params": list(model.named_parameters()), "weight_decay": weight_decay}]


@dataclass
class Training:
    """One training with some tricks on; makes its steps one by one, as harness.training does."""

    tricks: Sequence[Trick]
    steps: int = 0
    losses: list[float] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # of the last step

    def __post_init__(self) -> None:
        edited, self.context, self.model = recipe(), context(), net()
        for trick in self.tricks:
            edited = trick.edit_recipe(edited)
        for trick in self.tricks:
            self.model = trick.edit_model(self.model)
        groups = named_groups(self.model, edited.weight_decay)
        for trick in self.tricks:
            groups = trick.edit_parameter_groups(groups, self.model)
        plain = [{**group, "params": [value for _, value in group["params"]]} for group in groups]
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(plain, lr=0.1, momentum=0.9, nesterov=True)
        self.dtype = DTYPES[edited.precision]
        self.scaler = torch.amp.GradScaler("cpu", enabled=edited.precision == "fp16")
        self.states: dict[str, State | None] = {t.name: t.new_state(self.model) for t in self.tricks}
        self.loss: Loss = cross_entropy
        for trick in self.tricks:
            self.optimizer = trick.edit_optimizer(self.optimizer, self.states[trick.name])
            self.loss = trick.edit_loss(self.loss, self.context)

    def step(self) -> None:
        """One optimizer step on a batch of its own.

        Raises:
            Unwell: the loss or a gradient is not finite, or there is no gradient at all.
        """
        data = batch(seed=self.steps)
        for place, trick in enumerate(self.tricks):
            rng = torch.Generator().manual_seed(100 * self.steps + place)
            data = trick.edit_batch(data, rng, self.context)
        with EmulatedHalf(self.dtype) if self.dtype else nullcontext():
            output = self.model(data.images)
        loss = self.loss(output, data)
        if not torch.isfinite(loss):
            raise Unwell(f"the loss of step {self.steps + 1} is {loss.item()}")
        self.scaler.scale(loss).backward()
        self.gradients = [value.grad for value in self.model.parameters() if value.grad is not None]
        if not all(torch.isfinite(gradient).all() for gradient in self.gradients):
            raise Unwell(f"a gradient of step {self.steps + 1} is not finite")
        if not any(gradient.any() for gradient in self.gradients):
            raise Unwell(f"in step {self.steps + 1} no parameter has a gradient")
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())
        self.steps += 1

    def make_steps(self, count: int) -> Training:
        """Several steps; returns itself."""
        for _ in range(count):
            self.step()
        return self

    def eval_model(self) -> nn.Module:
        """The network that would be evaluated."""
        model = self.model
        for trick in self.tricks:
            model = trick.edit_eval_model(model, self.states[trick.name])
        return model

    def checkpoint(self) -> dict[str, Any]:
        """Everything that a resumed run needs."""
        states = {name: state.state_dict() for name, state in self.states.items() if state is not None}
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "tricks": states,
            "steps": self.steps,
        }

    def resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.model.load_state_dict(saved["model"])
        self.optimizer.load_state_dict(saved["optimizer"])
        for name, kept in saved["tricks"].items():
            state = self.states[name]
            if state is not None:
                state.load_state_dict(kept)
        self.steps = saved["steps"]


def bits(value: Any) -> list[bytes]:
    """The exact content of tensors, or of the tensors of a module's state."""
    tensors = value.state_dict().values() if isinstance(value, nn.Module) else value
    return [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]


@contextmanager
def no_global_randomness() -> Iterator[None]:
    """
    Raises:
        Unwell: the block drew from a generator that it was not given.
    """

    def state() -> list[Any]:
        legacy = np.random.get_state()  # noqa: NPY002
        return [torch.get_rng_state().tolist(), random.getstate(), str(legacy)]

    before = state()
    yield
    for name, was, now in zip(("torch's", "random's", "numpy's"), before, state(), strict=True):
        if was != now:
            raise Unwell(
                f"drew from {name} global generator; every draw must come from the `rng` it is given"
            )


# What a check of a contract is, and how checks are run over a plugin's things.


KEPT, BROKEN, SKIPPED = "kept", "broken", "skipped"


class Broken(Exception):
    """The contract is not kept: why, and how to mend it."""

    def __init__(self, why: str, mend: str) -> None:
        super().__init__(why)
        self.mend = mend


class Skipped(Exception):
    """The check cannot be made here; says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractFinding:
    """What one check said of one thing."""

    subject: str  # e.g. "trick half_batch"
    claim: str  # what is promised
    outcome: str  # KEPT | BROKEN | SKIPPED
    why: str = ""
    mend: str = ""


Check = Callable[[Any], None]  # raises Broken or Skipped; the first line of its docstring is the claim


def run_checks(subject: str, thing: Any, checks: Sequence[Check], path: Path) -> list[ContractFinding]:
    """Every check on one thing. An exception in the user's code is a broken contract, with its place."""
    return [_run(subject, thing, check, path) for check in checks]


def require(condition: bool, why: str, mend: str) -> None:
    """
    Raises:
        Broken: the condition does not hold.
    """
    if not condition:
        raise Broken(why, mend)


def _run(subject: str, thing: Any, check: Check, path: Path) -> ContractFinding:
    claim = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
    try:
        check(thing)
    except Broken as broken:
        return ContractFinding(
            subject=subject, claim=claim, outcome=BROKEN, why=str(broken), mend=broken.mend
        )
    except Skipped as skipped:
        return ContractFinding(subject=subject, claim=claim, outcome=SKIPPED, why=str(skipped))
    except Exception as error:
        why = str(from_exception(error, path, "it"))
        return ContractFinding(
            subject=subject, claim=claim, outcome=BROKEN, why=why, mend="mend the line it names"
        )
    return ContractFinding(subject=subject, claim=claim, outcome=KEPT)


# What every trick must keep, the harness's own and the user's, tried on the bench in about a second.


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
