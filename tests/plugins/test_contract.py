"""The contract suite finds what is planted, and passes what the harness itself ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.cli import main
from harness.models import MODELS
from harness.plugins import trick_contract
from harness.plugins.contract import CHECKS, check_plugin
from harness.plugins.install import only
from harness.plugins.load import Plugin
from harness.plugins.trick_contract import (
    BROKEN,
    IN_EVERY_SETTING,
    KEPT,
    ONCE,
    SKIPPED,
    ContractFinding,
    run_checks,
    settings,
)
from harness.tricks import TRICKS
from tests.conftest import mostly_campaign
from tests.plugins.sources import DATA, METRIC, MODEL, TRAINER, TRICK, loaded, written

EVERYTHING = TRICK + MODEL + DATA + METRIC + TRAINER


def findings(plugin: Plugin, data_dir: Path) -> list[ContractFinding]:
    with only([plugin]):
        return list(check_plugin(plugin, data_dir))


@pytest.fixture
def few_tricks(monkeypatch: pytest.MonkeyPatch) -> None:
    """To be beside three tricks is enough where something else is shown."""
    few = {name: TRICKS[name] for name in ("mixup", "ema", "bf16")}
    monkeypatch.setattr(trick_contract, "TRICKS", few)


def test_a_good_plugin_keeps_every_contract(tmp_path: Path) -> None:
    found = findings(loaded(tmp_path, EVERYTHING), tmp_path)
    assert [each for each in found if each.outcome != KEPT] == []
    assert {each.subject for each in found} == {
        "model tiny_net", "trick halves", "data set noise", "metric confidence", "trainer guess",
    }  # fmt: skip


SOFTENING = ("label_smoothing", "mixup")
HOOK, NAME = "    def edit_batch", '    name: ClassVar[str] = "halves"'
LIST_MODEL = "    def edit_model(self, model):\n        return list(model)\n\n"
MOVED_WEIGHTS = """    def edit_eval_model(self, model, state):
        import torch
        with torch.no_grad():
            next(model.parameters()).add_(1)
        return model

"""
LR_TWICE = """    def edit_recipe(self, recipe):
        import dataclasses
        return dataclasses.replace(recipe, lr=2 * recipe.lr)

"""
LR_BY_CHANCE = LR_TWICE.replace("import dataclasses", "import dataclasses, random").replace(
    "2 *", "random.random() *"
)
PATCHED_CLASS = """    def edit_loss(self, loss, context):
        from torch.nn import BatchNorm2d
        BatchNorm2d.forward = lambda self, x: 2 * x
        return loss

"""
TRICK_MISTAKES = [
    ("at = [", "import torch; images = torch.rand(1); at = [", "Batches depend on the given generator"),
    ("at = [", "import random; at = [random.random() for _ in range(3)] and [", "Batches depend on"),
    ("at = [2 *", "at = [0 *", None),
    ("batch.targets[at])", "batch.targets[at] / 2)", "Batches keep shapes"),
    ("batch.images[at],", "batch.images[at][:2],", "Batches keep shapes"),
    ("batch.images[at],", "batch.images.mul_(1.5),", "Batches keep shapes"),
    ("batch.images[at],", "batch.images[at].double(),", "Batches keep shapes"),
    ("batch.images[at],", "batch.images[at] / 0,", "Three steps are finite"),
    (HOOK, LIST_MODEL + HOOK, "Three steps"),
    (HOOK, MOVED_WEIGHTS + HOOK, "Evaluating leaves the training network"),
    (HOOK, LR_BY_CHANCE + HOOK, "Editing a recipe leaves the given one"),
    (HOOK, PATCHED_CLASS + HOOK, "A run without it is the same bits"),
    (NAME, f"{NAME}\n    per_image = True", "A trick that says it is per image"),
    (NAME, f'{NAME}\n    conflicts = ("mixupp",)', "The conflicts"),
    ("Equation: x' = x_0, x_2, x_4, ...\n", "", "Its card has every line"),
    ("Acts on: batch", "Acts on: loss", "Its card names the hooks"),
    ("Defaults: no options", "Defaults:", "Its card has every line"),
    (NAME, f"{NAME}\n    share: float = 0.5", "Its card names the hooks"),
    (HOOK, "    def _edit_batch", "It defines a hook"),
]


@pytest.mark.usefixtures("few_tricks")
@pytest.mark.parametrize(("old", "new", "claim"), TRICK_MISTAKES)
def test_a_planted_mistake_in_a_trick_is_found(tmp_path: Path, old: str, new: str, claim: str | None) -> None:
    from torch.nn import BatchNorm2d

    assert old in TRICK
    forward = BatchNorm2d.forward
    try:
        found = findings(loaded(tmp_path, TRICK.replace(old, new)), tmp_path)
    finally:
        BatchNorm2d.forward = forward  # type: ignore[method-assign]
    broken = [each.claim for each in found if each.outcome == BROKEN]
    assert any(each.startswith(claim) for each in broken) if claim else not broken


def test_a_trick_that_breaks_another_is_told_to_declare_the_conflict(tmp_path: Path) -> None:
    """It needs hard labels, and label smoothing makes soft ones."""
    hard = "at = [] if batch.targets.amax() == 1 else [][0]; at = ["
    for declared, outcome in (("", BROKEN), (f"\n    conflicts = {SOFTENING}", KEPT)):
        text = TRICK.replace("at = [", hard, 1).replace(NAME, NAME + declared)
        found = findings(loaded(tmp_path, text), tmp_path)
        (one,) = [each for each in found if each.claim.startswith("It works beside")]
        assert one.outcome == outcome, one
        assert one.mend.startswith("make it work, or declare conflicts") == (outcome == BROKEN)


STATEFUL = """
    def new_state(self, model):
        class Count:
            steps = 0
            def state_dict(self): return {KEPT}
            def load_state_dict(self, state): self.steps = state.get("steps", 0)
        return Count()

    def edit_optimizer(self, optimizer, state):
        plain = optimizer.step
        def step(closure=None):
            state.steps += 1
            for group in optimizer.param_groups:
                group["lr"] = 0.1 / state.steps
            return plain(closure)
        optimizer.step = step
        return optimizer

    def edit_batch"""


@pytest.mark.usefixtures("few_tricks")
def test_state_that_is_not_saved_is_found(tmp_path: Path) -> None:
    for kept, outcome in (('{"steps": self.steps}', KEPT), ("{}", BROKEN)):
        text = TRICK.replace("\n    def edit_batch", STATEFUL.replace("{KEPT}", kept))
        found = findings(loaded(tmp_path, text), tmp_path)
        assert [each.outcome for each in found if each.claim.startswith("Six steps")] == [outcome]


CUT = "type('Cut', (nn.Module,), {'forward': lambda self, x: x.detach()})()"
SEEDED_BY = "    import random, torch\n    torch.manual_seed(random.getrandbits(30))\n    return nn.Seq"
NEEDS_STORAGE = "    import torch; float(torch.zeros(1))\n    return nn.Seq"
BATCH_STATISTICS = "nn.BatchNorm2d(channels, track_running_stats=False)"


@pytest.mark.parametrize(
    ("old", "new", "claim"),
    [
        ('paper="own"', 'paper=" "', "Its defaults are valid"),
        ("number(1.0, low", "number(9.0, low", "Its defaults are valid"),
        ('{"width": 2.0}', '{"width": 9.0}', "Every variant is a valid setting"),
        ("nn.Linear(channels, classes)", "nn.Linear(channels, 7)", "It maps images"),
        ("nn.Flatten(), ", "", "It maps images"),
        ("nn.Flatten(),", f"nn.Flatten(), {CUT},", "Every parameter gets"),
        ("    return nn.Seq", SEEDED_BY, "The same seed gives"),
        ("nn.BatchNorm2d(channels)", BATCH_STATISTICS, "In evaluation mode the answer"),
        ("minimum_input=lambda args: 3", "minimum_input=lambda args: 2", "It works on images of its"),
        ("round(8 * width)", "8", "A smaller width has fewer"),
        ("    return nn.Seq", NEEDS_STORAGE, "Its cost can be counted"),
    ],
)
def test_a_planted_mistake_in_a_model_is_found(tmp_path: Path, old: str, new: str, claim: str) -> None:
    assert old in MODEL
    found = findings(loaded(tmp_path, MODEL.replace(old, new)), tmp_path)
    broken = [each.claim for each in found if each.outcome == BROKEN]
    assert any(each.startswith(claim) for each in broken)


@pytest.mark.parametrize(
    ("text", "old", "new", "claim"),
    [
        (DATA, "% 3", "% 4", "It loads: labels in range"),
        (DATA, "% 3", "% 2", "It loads: labels in range"),
        (DATA, "train_images=30", "train_images=31", "It loads: labels in range"),
        (DATA, "args, data_dir: 3", "args, data_dir: 4", "It loads: labels in range"),
        (DATA, "default_rng(seed)", "default_rng()", "Loading it again gives"),
        (DATA, "channels=3", "channels=1", "Its first images"),
        (DATA, "(0.3, 0.3, 0.3)", "(0.3, 0.3, 0.0)", "Its channels, mean"),
        (DATA, "data_dir: None", "data_dir: 'gone'", "`missing` answers None"),
        (METRIC, ".mean()", ".log().mean() * float('nan')", "It is a finite number"),
        (METRIC, ".mean()", "", "It is a finite number"),
        (METRIC, ".mean()", "[0]", "The order of the images"),
        (METRIC, "logits.soft", "logits.mul_(2).soft", "It leaves the logits"),
        (TRAINER, "(spec, run)", "(spec, run, more=1)", "It takes (spec, run)"),
    ],
)
def test_a_planted_mistake_in_data_metrics_and_trainers_is_found(
    tmp_path: Path, text: str, old: str, new: str, claim: str
) -> None:
    assert old in text
    found = findings(loaded(tmp_path, text.replace(old, new)), tmp_path)
    assert any(each.claim.startswith(claim) for each in found if each.outcome == BROKEN)


def test_files_that_are_not_here_are_not_a_broken_contract(tmp_path: Path) -> None:
    text = DATA.replace("data_dir: None", "data_dir: 'put the file noise.bin into the data folder'")
    found = findings(loaded(tmp_path, text), tmp_path)
    assert {each.outcome for each in found} == {KEPT, SKIPPED}
    assert any("put the file noise.bin" in each.why for each in found)


def test_a_trick_may_scale_what_it_finds(tmp_path: Path, few_tricks: None) -> None:
    """As higher_lr of the harness does; a study cannot switch one trick on twice."""
    found = findings(loaded(tmp_path, TRICK.replace(HOOK, LR_TWICE + HOOK)), tmp_path)
    broken = [each.claim for each in found if each.outcome == BROKEN]
    assert all(claim.startswith("Its card names the hooks") for claim in broken)


@pytest.mark.parametrize("name", mostly_campaign(TRICKS, "mixup", "ema", "cosine", "bf16"))
def test_the_harness_keeps_what_it_asks_of_others(name: str, tmp_path: Path) -> None:
    """Every check on every trick of the table; that pairs compose is in tests/test_tricks_contract.py."""
    once = [check for check in ONCE if check.__name__ != "composes"]
    for number, trick in enumerate(settings(TRICKS[name])):
        found = run_checks(name, trick, (*IN_EVERY_SETTING, *(() if number else once)), tmp_path)
        assert [each for each in found if each.outcome != KEPT] == []


def test_resnet18_keeps_the_contract_of_models(tmp_path: Path) -> None:
    found = run_checks("resnet18", MODELS["resnet18"], CHECKS, tmp_path)
    assert [each for each in found if each.outcome != KEPT] == []


def test_the_command_prints_what_is_kept_and_how_to_mend_the_rest(tmp_path: Path, capsys) -> None:
    path = written(tmp_path, METRIC + TRAINER)
    assert main(["check-plugin", str(path)]) == 0
    said = capsys.readouterr().out
    assert "metric confidence\n  kept         It is a finite number" in said
    assert "\n4 checks: 4 kept, 0 broken, 0 not checked\n" in said
    written(tmp_path, METRIC.replace(".mean()", "[0]") + TRAINER)
    assert main(["check-plugin", str(path)]) == 1
    said = capsys.readouterr().out
    assert "BROKEN       The order of the images does not matter: " in said
    assert "mend: average over the images" in said
    assert "1 broken" in said


def test_the_command_says_the_line_of_an_exception_in_the_users_code(tmp_path: Path, capsys) -> None:
    path = written(tmp_path, "def f(logits, labels):\n    return labels.no_such()\n\n\nMETRICS = {'f': f}\n")
    assert main(["check-plugin", str(path)]) == 1
    assert f"{path}:2: it failed: AttributeError: 'Tensor' object has no attribute" in capsys.readouterr().out


def test_the_command_refuses_what_cannot_be_loaded(tmp_path: Path, capsys) -> None:
    path = written(tmp_path, "1 / 0\n")
    assert main(["check-plugin", str(path)]) == 1
    said = capsys.readouterr()
    assert said.err == f"{path}:1: importing it failed: ZeroDivisionError: division by zero\n"
    assert "Traceback" not in said.out + said.err
