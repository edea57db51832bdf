"""What the runs of a plan will take on this machine: a short measurement of its networks, then kept.

`harness.training.step_times` measures, in a process of its own, each network of the plan with its batch, its
precision and its tricks, for at most `BUDGET_S`. The answers are kept in the user's cache folder, one file
per CPU, instruction sets, torch and version of the harness, so that the next plan answers without torch.
Networks that the budget left out are estimated from those that were measured.

A run costs steps x `step_s` + evaluated images x `eval_s` + `start_s` + `RUN_S`, in seconds of one core. What
finished runs took says it better and wins (`harness.runs.state`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from harness.data import ImageCounts
from harness.data.entry import cache_folder
from harness.errors import MEASURE, decided, is_switched_off
from harness.runs.folder import read_json, write_json
from harness.runs.provenance import cpu_name
from harness.spec import Arm, CanonicalText, Recipe, RunSpec, TrickSpec, canonical_json, digest
from harness.study.plan import Plan, PlannedRun

BUDGET_S = 3.0  # of measuring; the process imports torch before that
MEASURING_S = 15.0  # of wall time, on a machine that does other things beside
LIMIT_S = 60.0  # after which the process is ended: torch from a cold disk takes its time
RUN_S = 0.15  # of a run beside steps, evaluations and building: its files, its data
MOST_IMAGES = 256  # of a measured batch; a larger one takes as long per image
MOST_MACS = 2e10  # of one measured step; beyond that, fewer images
CAPS = ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
CURVE_IMAGES = 1000  # `training.evaluate.curve_subset`
LAST_EPOCHS = {"median_of_last_5": 5}  # evaluations of a read-out; else 1
_TORCH = re.compile(r"torch-[^-]+\.dist-info")
TIMES = ("step_s", "eval_s", "start_s")
FREE: dict[str, Any] = {  # what changes no step's time -> a value for all
    "epochs": 1.0, "lr": 0.01, "weight_decay": 1e-4, "schedule": "constant", "milestones": (), "decay": 0.1,
    "decay_every": 1.0, "warmup_epochs": 0.0, "warmup_lr": 0.0, "warmup_shape": "linear", "curve_points": 1,
    "read_out": "last_epoch", "metrics": (), "initialisation": "he_fan_out", "auxiliary_weight": 0.3,
    "shuffle": "images", "eval_weights": "own", "eval_crops": 1, "eval_crop": 0.875,
}  # fmt: skip


class Times(NamedTuple):
    """CPU seconds of one thread on this machine."""

    step_s: float  # one step of training
    eval_s: float  # one view of a test image
    start_s: float  # once per run
    views: Mapping[str, int]  # crops -> different views of a test image

    def evaluation_s(self, images: float, crops: int = 1) -> float:
        return self.eval_s * images * self.views.get(str(crops), crops)


class Question(NamedTuple):
    """One way to train, as it is measured."""

    key: str
    spec: RunSpec
    larger: float  # the batch over the measured one
    work: float  # multiply-adds of one measured step
    share: float  # multiply-adds of all runs that it stands for


def estimate(plan: Plan, data_dir: Path, *, measure: bool) -> None:
    """Set `time_s` of the runs that have none or a rough one, in place. Nothing where a GPU will train, or
    nothing is known.

    measure: measure what the cache has not, and say so on stderr; else only what is known already.
    """
    todo = [run for run in plan.runs if not run.done and (run.time_s is None or run.rough)]
    if not todo or plan.scripts:
        return
    from harness.runs.provenance import detect_devices

    if detect_devices() != ("cpu",):
        return
    path = cache_file()
    decided(f"this machine's speed: {path}")
    known = _read(path)
    if not (measure or known):
        return
    counts = ImageCounts(data_dir)
    questions = _questions(plan, todo, counts)
    wanted = {each.key: each for each in questions.values()}
    if measure and any(key not in known for key in wanted) and not is_switched_off(MEASURE):
        known |= _measure([each for key, each in wanted.items() if key not in known], data_dir)
        _keep(path, known)
    times = _times(questions, known)
    for run in todo:
        time_s = _time_s(plan, run, times, counts)
        if time_s is not None:
            run.time_s, run.rough = time_s, False


def _questions(plan: Plan, todo: Sequence[PlannedRun], counts: ImageCounts) -> dict[str, Question]:
    """arm_id -> what is to be measured for it: of the arms that train, and those that evaluations observe."""
    share: dict[str, float] = {}
    for run in todo:
        arm = plan.arms[run.arm_id]
        for arm_id in (run.arm_id, arm.teacher, *(member.arm for member in arm.observes)):
            if arm_id is not None and arm_id in plan.arms:
                share[arm_id] = share.get(arm_id, 0.0) + run.macs
    macs = {run.arm_id: run.macs for run in plan.runs}
    found = {}
    text = CanonicalText()
    for arm_id, each in share.items():
        arm = plan.arms[arm_id]
        images, _ = _images(arm.recipe, counts)
        if arm.observes or arm.plugins or arm.recipe.trainer != "harness" or not images or not macs[arm_id]:
            continue
        per_image = macs[arm_id] / (images * arm.recipe.epochs)
        found[arm_id] = _question(arm, per_image, each, text)
    return found


def _question(arm: Arm, macs_per_image: float, share: float, text: CanonicalText) -> Question:
    recipe = arm.recipe
    at_most = max(1, min(MOST_IMAGES, int(MOST_MACS / macs_per_image)))
    batch = min(recipe.batch_size, at_most)
    if recipe.norm_images and batch < recipe.batch_size:  # whole groups
        batch = max(recipe.norm_images, batch // recipe.norm_images * recipe.norm_images)
    measured = recipe.but(**FREE, batch_size=batch)
    tricks = tuple(trick for trick in arm.tricks if trick.name != "distillation")  # priced by the teacher
    spec = RunSpec(arm=Arm(recipe=measured, tricks=tricks), seed=0)
    alike = tuple(TrickSpec(name=trick.name, options=_words(trick.options)) for trick in tricks)
    return Question(
        key=text.arm_id(dataclasses.replace(spec.arm, tricks=alike)),
        spec=spec,
        larger=recipe.batch_size / batch,
        work=macs_per_image * batch,
        share=share,
    )


def _words(options: Mapping[str, Any]) -> dict[str, Any]:
    """Amounts change no step's time; forms may."""
    return {name: value for name, value in options.items() if isinstance(value, str | bool)}


def _measure(questions: Sequence[Question], data_dir: Path) -> dict[str, Any]:
    """key -> its times, or None where it was left out or cannot be measured; {} where nothing was."""
    print(f"measuring this machine's speed, once (some {BUDGET_S + 2:.0f} s)", file=sys.stderr, flush=True)
    ordered = _in_order(questions)
    asked = {
        "budget_s": BUDGET_S,
        "limit_s": MEASURING_S,
        "data_dir": str(data_dir),
        "questions": [{"key": each.key, "spec": each.spec.to_json()} for each in ordered],
    }
    import subprocess

    command = [sys.executable, "-m", "harness.training.step_times"]
    code = 0
    try:
        done = subprocess.run(  # noqa: S603  an argument list, no shell
            command, input=json.dumps(asked), capture_output=True, text=True, timeout=LIMIT_S, check=False
        )
        output, errors, code = done.stdout, done.stderr, done.returncode
    except subprocess.TimeoutExpired as error:  # what it said by then counts
        output, errors = _text(error.stdout), f"no answer within {LIMIT_S:g} s"
    except OSError as error:
        return _not_measured(str(error))
    try:
        answers = [json.loads(line) for line in output.splitlines(keepends=True) if line.endswith("\n")]
    except ValueError as error:
        return _not_measured(str(error))
    if not answers:
        lines = errors.strip().splitlines() or [f"it ended with code {code}"]
        return _not_measured(lines[-1])
    found = {answer.pop("key"): answer for answer in answers}
    return {each.key: _valid(found.get(each.key)) for each in ordered}


def _text(output: str | bytes | None) -> str:
    return output.decode("utf-8", "replace") if isinstance(output, bytes) else output or ""


def _not_measured(why: str) -> dict[str, Any]:
    print(f"this machine's speed could not be measured: {why}", file=sys.stderr)
    return {}


def _in_order(questions: Sequence[Question]) -> list[Question]:
    """The budget may end: first one of each architecture and precision, most work first."""
    ranked = sorted(questions, key=lambda each: (-each.share, each.key))
    rounds: dict[tuple[str, str], int] = {}
    place: dict[str, int] = {}
    for each in ranked:
        family = _family(each.spec.arm.recipe)
        place[each.key] = rounds[family] = rounds.get(family, -1) + 1
    return sorted(ranked, key=lambda each: place[each.key])


def _family(recipe: Recipe) -> tuple[str, str]:
    return recipe.model.name, recipe.precision


def _times(questions: Mapping[str, Question], known: Mapping[str, Any]) -> dict[str, Times]:
    """arm_id -> the times of its own batch; those that were not measured from their nearest relatives."""
    measured = {
        each.key: (each, Times(**known[each.key])) for each in questions.values() if known.get(each.key)
    }
    if not measured:
        return {}
    found = {}
    for arm_id, question in questions.items():
        if question.key in measured:
            times = measured[question.key][1]
        else:
            times = _from_relatives(question, list(measured.values()))
        found[arm_id] = times._replace(step_s=times.step_s * question.larger)
    return found


def _from_relatives(question: Question, measured: Sequence[tuple[Question, Times]]) -> Times:
    """From the measured way to train that is most alike: the same family, then the amount of work. Half of
    what a step costs is taken to grow with its multiply-adds: in small networks most of it does not."""
    recipe = question.spec.arm.recipe

    def distance(pair: tuple[Question, Times]) -> tuple[bool, bool, bool, float]:
        other = pair[0].spec.arm.recipe
        ratio = pair[0].work / question.work
        return (
            other.model != recipe.model,
            _family(other) != _family(recipe),
            other.data.resolution != recipe.data.resolution,
            max(ratio, 1 / ratio),
        )

    nearest, times = min(measured, key=distance)
    per_step = (1.0 + question.work / nearest.work) / 2.0
    same_batch = nearest.spec.arm.recipe.batch_size / recipe.batch_size
    per_image = (1.0 + question.work / nearest.work * same_batch) / 2.0
    return Times(
        step_s=times.step_s * per_step,
        eval_s=times.eval_s * per_image,
        start_s=times.start_s,
        views=times.views,
    )


def _time_s(plan: Plan, run: PlannedRun, times: Mapping[str, Times], counts: ImageCounts) -> float | None:
    """Wall time of one run on one core."""
    arm = plan.arms[run.arm_id]
    images, tested = _images(arm.recipe, counts)
    if arm.observes:
        if not tested or any(member.arm not in times for member in arm.observes):
            return None
        crops = arm.recipe.eval_crops
        return RUN_S + sum(
            times[member.arm].evaluation_s(tested, crops) * member.runs for member in arm.observes
        )
    if run.arm_id not in times or not images or not tested:
        return None
    own, recipe = times[run.arm_id], arm.recipe
    steps_per_epoch = max(1, images // recipe.batch_size)
    step_s = own.step_s
    if arm.teacher is not None and arm.teacher in times:
        step_s += times[arm.teacher].eval_s * recipe.batch_size
    curve_s = own.evaluation_s(recipe.curve_points * recipe.epochs * min(CURVE_IMAGES, tested))
    result_s = own.evaluation_s(LAST_EPOCHS.get(recipe.read_out, 1) * tested, recipe.eval_crops)
    return RUN_S + own.start_s + steps_per_epoch * recipe.epochs * step_s + curve_s + result_s


def _images(recipe: Recipe, counts: ImageCounts) -> tuple[int | None, int | None]:
    """Training and test images; None where nobody knows."""
    data = recipe.data
    train, test = counts(data.name, data.args)
    return data.train_images or train, data.test_images or test


def machine_key() -> dict[str, str]:
    """What the measured times depend on."""
    # `harness` names its Python API, which needs this file: imported at the top it would be a circle.
    from harness import __version__

    caps = {name: os.environ[name] for name in CAPS if name in os.environ}
    return {"cpu": cpu_name(), "torch": torch_version(sys.path), "harness": __version__, **caps}


def torch_version(folders: Sequence[str]) -> str:
    """Of the first of these folders that has torch; what `importlib.metadata` says, without its 20 ms."""
    for folder in folders:
        with contextlib.suppress(OSError):
            found = [name for name in os.listdir(folder) if _TORCH.fullmatch(name)]
            if found:
                return min(found).removeprefix("torch-").removesuffix(".dist-info")
    return "none"


def cache_file() -> Path | None:
    """Where the times of this machine are kept; None where the user has no home."""
    folder = cache_folder()
    return folder and folder / "step_times" / f"{digest(canonical_json(machine_key()))}.json"


def _read(path: Path | None) -> dict[str, Any]:
    """key -> times, or None: was left out. {} where nothing usable is kept."""
    try:
        kept = read_json(path) if path else None
    except (OSError, ValueError):
        return {}
    if not isinstance(kept, dict) or not isinstance(kept.get("times"), dict):
        return {}
    return {key: _valid(value) for key, value in kept["times"].items()}


def _valid(answer: Any) -> dict[str, Any] | None:
    """The times of an answer, if it has all of them and they are times."""
    if not isinstance(answer, dict) or not isinstance(answer.get("views"), dict):
        return None
    numbers = [answer.get(name) for name in TIMES] + list(answer["views"].values())
    if not all(_is_time(number) for number in numbers):
        return None
    return {name: answer[name] for name in (*TIMES, "views")}


def _is_time(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e6


def _keep(path: Path | None, known: Mapping[str, Any]) -> None:
    """With what another plan has measured meanwhile."""
    if path is None or not known:
        return
    try:
        write_json(path, {"machine": machine_key(), "times": {**_read(path), **known}})
    except OSError as error:
        print(f"{path}: {error.strerror or error}; the next plan measures again", file=sys.stderr)
