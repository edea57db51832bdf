"""Variants, switches that a model lacks, images that are too small, networks that keep their own weights."""

from __future__ import annotations

from pathlib import Path

from tests.study.fakes import HEAD, HEAD_LINES, arm_of, mistakes, plan_of

LINE = HEAD_LINES + 1


def _rows(*rows: str, head: str = HEAD) -> str:
    return head + f"tables: {{t: {{title: T, design: rows, rows: [{', '.join(rows)}]}}}}\n"


def test_a_variant_is_its_family_with_arguments(tmp_path: Path) -> None:
    plan = plan_of(
        tmp_path,
        _rows(
            "{label: variant, set: {model: resnet50d}}",
            "{label: tricks, add: [resnet_b, resnet_c, resnet_d]}",
            "{label: part, set: {model: {resnet50d: {stem: 7x7}}}}",
        ),
    )
    assert arm_of(plan, "variant") == arm_of(plan, "tricks")
    assert arm_of(plan, "variant").recipe.model.name == "resnet50"
    args = arm_of(plan, "part").recipe.model.args
    assert (args["stem"], args["stride_in"], args["shortcut"]) == ("7x7", "3x3", "avgpool")


def test_a_size_may_name_the_family_the_variant_or_both(tmp_path: Path) -> None:
    family = "resnet50: {width: 0.5, depth: [1, 1, 1], stem: 7x7}"
    for models, width, depth in (
        (f"{{{family}}}", 0.5, (1, 1, 1)),
        ("{resnet50d: {width: 0.25}}", 0.25, (3, 4, 6, 3)),
        (f"{{{family}, resnet50d: {{width: 0.25}}}}", 0.25, (1, 1, 1)),
    ):
        head = HEAD.replace("1/8}", f"1/8, models: {models}}}")
        plan = plan_of(tmp_path, _rows("{label: d, set: {model: resnet50d}}", "{label: plain}", head=head))
        args = arm_of(plan, "d").recipe.model.args
        assert (args["width"], args["depth"], args["stem"]) == (width, depth, "deep")
        assert arm_of(plan, "plain").recipe.model.args["width"] == (0.5 if family in models else 1.0)


def test_a_trick_whose_switch_the_model_lacks_does_not_apply(tmp_path: Path) -> None:
    text = _rows("{label: a}", "{label: b, set: {model: {inception: {stem: small}}}, add: [mixup, resnet_d]}")
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{LINE}: trick 'resnet_d' does not apply to the model inception: it has no argument"
        " 'shortcut'. Valid: stem, width (t, row 'b'; sizes mini, gpu, paper)"
    ]


def test_images_that_are_too_small_are_refused_where_they_are(tmp_path: Path) -> None:
    text = _rows("{label: a}", "{label: b, set: {model: inception}}")
    hint = "give the size a larger resolution, or arguments under 'models' that halve the image less often"
    assert mistakes(tmp_path, text) == [
        f"small.yaml:{LINE}: inception needs at least 75 pixels with these arguments, here are 32; {hint}"
        " (t, row 'b'; size mini)",
        f"small.yaml:{LINE}: inception needs at least 75 pixels with these arguments, here are 64; {hint}"
        " (t, row 'b'; size gpu)",
    ]
    head = HEAD.replace("1/8}", "1/8, models: {inception: {stem: small}}}").replace(
        "resolution: 64", "resolution: 75"
    )
    assert mistakes(tmp_path, text.replace(HEAD, head)) == []


def test_a_mistake_in_a_named_arm_is_said_at_the_arm_with_the_row_that_needs_it(tmp_path: Path) -> None:
    arms = "arms: {big: {model: inception}}\n"
    text = _rows("{label: a, add: {distillation: {teacher: big}}}", head=HEAD + arms)
    lines = mistakes(tmp_path, text)
    assert [line.split(";")[0] for line in lines] == [
        f"small.yaml:{LINE}: inception needs at least 75 pixels with these arguments, here are {pixels}"
        for pixels in (32, 64)
    ]
    assert lines[0].endswith("(t, row 'a'; size mini)")


def test_a_network_that_keeps_its_weights_says_so_in_the_spec(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, _rows("{label: zoo, set: {model: timm/x}}", "{label: ours}"))
    assert arm_of(plan, "zoo").recipe.initialisation == "own"
    assert arm_of(plan, "ours").recipe.initialisation == "he_fan_out"
    for how in ("set: {model: timm/x, initialisation: xavier}", "set: {model: timm/x}, add: initialisation"):
        assert mistakes(tmp_path, _rows(f"{{label: a, {how}}}")) == [
            f"small.yaml:{LINE}: timm/x keeps the weights of its constructor; initialisation 'xavier' does"
            " not apply to it (t, row 'a'; sizes mini, gpu, paper)"
        ]


def test_a_baseline_that_keeps_its_weights_leaves_the_others_their_scheme(tmp_path: Path) -> None:
    head = HEAD.replace("model: resnet50,", "model: timm/x,")
    plan = plan_of(tmp_path, _rows("{label: zoo}", "{label: ours, set: {model: resnet50}}", head=head))
    assert arm_of(plan, "zoo").recipe.initialisation == "own"
    assert arm_of(plan, "ours").recipe.initialisation == "he_fan_out"


def test_an_unknown_model_as_a_level_of_a_grid_is_refused(tmp_path: Path) -> None:
    text = HEAD + "tables: {t: {title: T, design: grid, factors: {model: [resnet50, resnet5]}}}\n"
    (message,) = mistakes(tmp_path, text)
    assert message.startswith(f"small.yaml:{LINE}: unknown model 'resnet5'; did you mean 'resnet50'?")


def test_an_arm_may_have_a_recipe_of_its_own(tmp_path: Path) -> None:
    head = HEAD.replace("bag_of_tricks_baseline}", "bag_of_tricks_baseline, set: {lr: 0.5}}")
    arms = (
        "arms: {other: {recipe: goyal}, longer: {from: other, set: {epochs: 180}},"
        " loud: {add: mixup, set: {lr: 0.7}}, back: {from: loud, recipe: goyal}}\n"
    )
    plan = plan_of(
        tmp_path,
        _rows("{label: own}", "{label: other, start_from: other}", "{label: longer, start_from: longer}",
              "{label: back, start_from: back}",
              head=head + arms),
        size="paper",
    )  # fmt: skip
    recipes = {row: arm_of(plan, row).recipe for row in ("own", "other", "longer")}
    assert {row: (each.lr, each.epochs) for row, each in recipes.items()} == {
        "own": (0.5, 120.0),
        "other": (0.1, 90.0),
        "longer": (0.1, 180.0),
    }
    assert recipes["other"].read_out == "median_of_last_5"
    back = arm_of(plan, "back")  # the numbers below the recipe are gone, the tricks are not
    assert (back.recipe, [trick.name for trick in back.tricks]) == (recipes["other"], ["mixup"])
