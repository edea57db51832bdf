"""The same numbers are the same arm; any other number is another arm."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import json
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from harness.errors import frozen
from harness.spec import (
    CAME_LATER,
    Arm,
    AugmentSpec,
    CanonicalText,
    DataSpec,
    Member,
    ModelSpec,
    Recipe,
    RunSpec,
    TrickSpec,
    as_plain,
    canonical_json,
    fields_of,
    recipe_of,
    run_id,
)
from harness.study.catalogue import RECIPES
from harness.study.schema import AUGMENT_FIELDS, CHANGE_FIELDS
from tests.study.fakes import HEAD, cells, plan_of

NUMBER = st.floats(allow_nan=False, allow_infinity=False, width=64)
OPTIONS = st.dictionaries(
    st.text(max_size=8), st.one_of(NUMBER, st.integers(), st.booleans(), st.text(max_size=5))
)
RECIPE = st.builds(
    Recipe,
    model=st.builds(ModelSpec, name=st.text(max_size=9), args=OPTIONS, weights=st.sampled_from(["", "%1"])),
    data=st.builds(DataSpec, name=st.just("100% cotton"), resolution=st.integers(1, 999), args=OPTIONS),
    augment=st.builds(
        AugmentSpec, crop_area=st.tuples(NUMBER, NUMBER), flip=NUMBER, crop_pad=st.integers(0, 2)
    ),
    epochs=NUMBER,
    batch_size=st.integers(1, 10**6),
    optimizer_args=OPTIONS,
    lr=NUMBER,
    weight_decay=NUMBER,
    milestones=st.lists(NUMBER, max_size=4).map(tuple),
    precision=st.text(max_size=5),
    clip_norm=NUMBER | st.integers(0, 3),
    decay_every=NUMBER,
    auxiliary_weight=st.sampled_from([0.0, -0.0, 0, 0.3]),
    norm_images=st.integers(0, 10**6),
    eval_crops=st.sampled_from([1, 1.0, 144]),
    metrics=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    freeze=st.lists(st.text(max_size=3), max_size=2).map(tuple),
    lr_scale=st.dictionaries(st.text(max_size=3), NUMBER, max_size=2),
    trainer=st.text(max_size=5),
)
TRICKS = st.lists(st.builds(TrickSpec, name=st.text(max_size=5), options=OPTIONS), max_size=3).map(tuple)
OTHER_PARTS: tuple[dict[str, Any], ...] = (
    {"teacher": "t"},
    {"source": "t"},
    {"observes": (Member(arm="t"),)},
    {"observes": (Member(arm="t", runs=2),)},
    {"plugins": {"lab.py": "1234"}},
    {"plugins": {"lab.py": "5678"}},
)
ID = st.text(max_size=5)
ARM = st.builds(
    Arm,
    recipe=RECIPE,
    tricks=TRICKS,
    teacher=st.none() | ID,
    source=st.none() | ID,
    observes=st.lists(st.builds(Member, arm=ID, runs=st.integers(1, 9)), max_size=2).map(tuple),
    plugins=st.dictionaries(ID, ID, max_size=2),
)


@settings(max_examples=50, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(st.lists(ARM, min_size=1, max_size=3))
def test_the_fast_canonical_text_is_the_documented_one(arms: list[Arm]) -> None:
    fast = CanonicalText()
    for arm in [*arms, *arms]:
        assert fast.arm(arm) == canonical_json(as_plain(arm))
        assert fast.arm_id(arm) == arm.arm_id


def test_arms_that_share_everything_but_one_part_have_texts_of_their_own() -> None:
    fast, arm = CanonicalText(), _arm()
    for change in OTHER_PARTS:
        for each in (arm, dataclasses.replace(arm, **change)):
            assert fast.arm(each) == canonical_json(as_plain(each))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_that_is_not_finite_has_no_identity(value: float) -> None:
    recipe = dataclasses.replace(_arm().recipe, lr=value)
    with pytest.raises(ValueError, match=r"^lr must be a finite number$"):
        CanonicalText().recipe(recipe)
    recipe = dataclasses.replace(_arm().recipe, clip_norm=value)
    with pytest.raises(ValueError, match=r"^clip_norm must be a finite number$"):
        CanonicalText().recipe(recipe)


@settings(max_examples=30, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])
@given(RECIPE)
def test_the_fast_way_from_and_to_fields_is_the_dataclass(recipe: Recipe) -> None:
    fields = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(Recipe)}
    assert fields_of(recipe) == fields
    assert list(fields_of(recipe)) == list(fields)
    made = recipe_of({**fields, "lr": 0.25})
    assert made == dataclasses.replace(recipe, lr=0.25)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.lr = 1.0  # type: ignore[misc]


def _arm() -> Arm:
    return Arm(
        recipe=Recipe(
            model=ModelSpec(name="resnet50", args={"width": 1.0}),
            data=DataSpec(name="imagenet", resolution=224),
            **RECIPES["bag_of_tricks_baseline"],
        ),
        tricks=(TrickSpec(name="mixup", options={"alpha": 0.2}),),
    )


def test_every_field_of_a_recipe_is_part_of_the_identity() -> None:
    arm = _arm()
    for field in dataclasses.fields(Recipe):
        value = getattr(arm.recipe, field.name)
        other = {
            "model": ModelSpec(name="resnet50", args={"width": 0.5}),
            "data": DataSpec(name="imagenet", resolution=225),
            "augment": AugmentSpec(flip=0.25),
            "optimizer_args": {"momentum": 0.8},
            "milestones": (30.0,),
        }.get(field.name, value + 1 if isinstance(value, int | float) else f"{value}x")
        changed = dataclasses.replace(arm, recipe=dataclasses.replace(arm.recipe, **{field.name: other}))
        assert changed.arm_id != arm.arm_id, field.name
    assert dataclasses.replace(arm, tricks=()).arm_id != arm.arm_id
    ids = {dataclasses.replace(arm, **change).arm_id for change in OTHER_PARTS}
    assert len(ids | {arm.arm_id}) == 1 + len(OTHER_PARTS)


def test_ids_have_128_bits_and_do_not_change_between_versions() -> None:
    """Pinned: a change of these two means that every run on every disk is trained again."""
    assert _arm().arm_id == "70d551e661a5e5988e9c8340ed1ff856"
    assert run_id(_arm().arm_id, 3) == "d11b3ea4c725d432bec5b8895312f406"
    assert len(_arm().arm_id) * 4 == 128


def test_padding_is_part_of_an_identity_only_where_there_is_some() -> None:
    """The field came after runs without it, whose ids stay (docs/decisions/0030): its default is frozen."""
    assert CAME_LATER == {"crop_pad": 0, "weights": "", "freeze": (), "lr_scale": {}}
    assert AugmentSpec().crop_pad == 0
    arm = _arm()
    padded = dataclasses.replace(
        arm,
        recipe=dataclasses.replace(arm.recipe, augment=dataclasses.replace(arm.recipe.augment, crop_pad=4)),
    )
    assert "crop_pad" not in as_plain(arm)["recipe"]["augment"]
    assert as_plain(padded)["recipe"]["augment"]["crop_pad"] == 4
    assert padded.arm_id != arm.arm_id
    for each in (arm, padded):
        assert RunSpec.from_json(json.loads(json.dumps(RunSpec(arm=each, seed=0).to_json()))).arm == each


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("freeze", ("backbone",)),
        ("lr_scale", {"backbone": 0.1}),
        ("model", ModelSpec(name="a", weights="12")),
    ],
)
def test_fine_tuning_is_part_of_an_identity_only_where_there_is_some(field: str, value: Any) -> None:
    plain = dataclasses.replace(_arm().recipe, model=ModelSpec(name="a"))
    arms = [dataclasses.replace(_arm(), recipe=plain)]
    arms.append(dataclasses.replace(arms[0], recipe=dataclasses.replace(plain, **{field: value})))
    assert not {"freeze", "lr_scale"} & set(as_plain(arms[0])["recipe"])
    assert "weights" not in as_plain(arms[0])["recipe"]["model"]
    assert arms[0].arm_id != arms[1].arm_id
    for each in arms:
        assert CanonicalText().arm(each) == canonical_json(as_plain(each))
        assert RunSpec.from_json(json.loads(json.dumps(RunSpec(arm=each, seed=0).to_json()))).arm == each


def test_a_spec_survives_its_json_file() -> None:
    arm = dataclasses.replace(_arm(), source="s", observes=(Member(arm="t", runs=2),), plugins={"a.py": "1"})
    spec = RunSpec(arm=arm, seed=3)
    again = RunSpec.from_json(json.loads(json.dumps(spec.to_json())))
    assert again == spec
    assert again.run_id == spec.run_id


def test_a_number_written_as_1_or_as_1_0_is_the_same_arm(tmp_path: Path) -> None:
    text = """
tables:
  t:
    title: T
    design: rows
    rows:
      - {label: whole, set: {epochs: 60, weight_decay: 1, milestones: [30, 60]}, add: {mixup: {alpha: 1}}}
      - label: decimal
        set: {epochs: 60.0, weight_decay: 1.0, milestones: [30.0, 6.0e+1]}
        add: {mixup: {alpha: 1.0}}
      - {label: model whole, set: {model: {resnet50: {width: 1}}}}
      - {label: model default}
"""
    found = cells(plan_of(tmp_path, HEAD + text), "t")
    assert found["whole", None].arm_id == found["decimal", None].arm_id
    assert found["model whole", None].arm_id == found["model default", None].arm_id
    assert found["whole", None].arm_id != found["model default", None].arm_id


def test_set_may_change_every_field_of_recipe_and_augmentation() -> None:
    recipe = {field.name for field in dataclasses.fields(Recipe)} - {"data", "augment"}
    augment = {field.name for field in dataclasses.fields(AugmentSpec)}
    assert recipe | augment | {"data", "resolution"} == CHANGE_FIELDS
    assert augment == AUGMENT_FIELDS


@pytest.mark.parametrize("name", RECIPES)
def test_named_recipes_leave_nothing_to_defaults(name: str) -> None:
    needed = {field.name for field in dataclasses.fields(Recipe)} - {"model", "data"}
    assert set(RECIPES[name]) == needed


def _class_by(maker: Any) -> Any:
    class Sample:
        name: str
        sizes: tuple[int, ...] = (1,)
        args: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)
        seen: list[int] = dataclasses.field(default_factory=list, repr=False)

    return maker(Sample)


def test_a_frozen_class_does_as_a_frozen_dataclass_of_python() -> None:
    own, pythons = _class_by(frozen), _class_by(dataclass(frozen=True, slots=True, kw_only=True))
    one, other = (make(name="a", sizes=(2, 3), args={"b": 1}, seen=()) for make in (own, pythons))
    assert repr(one) == repr(other)
    assert hash(one) == hash(other)
    assert dataclasses.asdict(one) == dataclasses.asdict(other)
    assert one == dataclasses.replace(one, args={}) != dataclasses.replace(one, name="b")
    assert (one == other, one == "a", len({one, copy.copy(one)})) == (False, False, 1)
    assert own(name="a").seen is not own(name="a").seen
    assert own.__slots__ == pythons.__slots__
    shown = [
        [(each.name, each.kind, each.annotation) for each in inspect.signature(make).parameters.values()]
        for make in (own, pythons)
    ]
    assert shown[0] == shown[1]
    assert [each.default for each in inspect.signature(own).parameters.values()][:2] == [inspect._empty, (1,)]
    for made in (one, other):
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'name'"):
            made.name = "c"
        with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'name'"):
            del made.name
    for make in (own, pythons):
        for wrong in ({}, {"name": "a", "nme": "b"}):
            with pytest.raises(TypeError, match="keyword"):
                make(**wrong)
        with pytest.raises(TypeError, match="positional"):
            make("a")


def test_a_spec_survives_another_process_and_a_copy() -> None:
    spec = RunSpec(
        arm=Arm(recipe=_arm().recipe, tricks=(TrickSpec(name="mixup", options={"alpha": 0.2}),)), seed=3
    )
    for again in (pickle.loads(pickle.dumps(spec)), copy.deepcopy(spec)):
        assert again == spec
        assert again.arm.recipe is not spec.arm.recipe
        assert again.run_id == spec.run_id
