"""Changes to a study as data: what a hurried author, a broken generator or an enemy would write."""

from __future__ import annotations

import copy
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

from tests.fuzz import odd_values
from tests.fuzz.corpus import parts, seeds, words

Place = tuple[Any, Any]  # a map or list, and the key or index in it
EDITS = (1, 1, 1, 1, 1, 2, 3, 5)
NUMBER_KEYS = (
    *("epochs", "batch_size", "resolution", "start", "at_most", "width", "depth", "batch_scale", "lr"),
    *("train_images", "test_images", "members", "milestones", "every", "norm_images", "curve_points"),
    *("smallest_effect", "eval_crops", "warmup_epochs", "classes", "decay_every", "groups", "group_width"),
)


def mutated_tree(random: Random) -> str:
    """The text of a study from the corpus with a few edits."""
    tree = copy.deepcopy(random.choice(seeds()).data)
    for _ in range(random.choice(EDITS)):
        random.choice(MUTATORS)(tree, random)
    return dumped(tree, random)


def dumped(tree: Any, random: Random) -> str:
    """YAML of plain data; flow or block style, sorted or not, as the generator of a file might choose."""
    flow = random.choice((None, True, False))
    try:
        return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False, default_flow_style=flow, width=1000)
    except (ValueError, RecursionError):  # a whole number too long for Python to write
        return repr(tree)[:1000]


def places(tree: Any) -> list[Place]:
    """Every key and list item of the tree."""
    found: list[Place] = []
    waiting = [tree]
    while waiting:
        here = waiting.pop()
        keys = list(here) if isinstance(here, dict) else range(len(here)) if isinstance(here, list) else ()
        for key in keys:
            found.append((here, key))
            waiting.append(here[key])
    return found


def _a_place(tree: Any, random: Random) -> Place:
    return random.choice(places(tree) or [({"": None}, "")])


def odd_value(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    here[key] = copy.deepcopy(random.choice(odd_values.ALL))


def value_from_elsewhere(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    here[key] = random.choice(words()[1])


def part_from_elsewhere(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    here[key] = copy.deepcopy(random.choice(parts()))


def delete(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    del here[key]


def rename(tree: Any, random: Random) -> None:
    maps = [(here, key) for here, key in places(tree) if isinstance(here, dict)]
    if maps:
        here, key = random.choice(maps)
        name = random.choice(
            (*words()[0], f"{key}x", str(key)[1:], *odd_values.TEXTS, *odd_values.NUMBERS, None, True)
        )
        here[name] = here.pop(key)


def move(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    value = here[key]
    del here[key]
    there, _ = _a_place(tree, random)
    if isinstance(there, dict):
        there[key] = copy.deepcopy(value)
    else:
        there.append(copy.deepcopy(value))


def repeat(tree: Any, random: Random) -> None:
    lists = [here[key] for here, key in places(tree) if isinstance(here[key], list) and here[key]]
    if lists:
        chosen = random.choice(lists)
        if len(chosen) < 1000:
            chosen.extend(copy.deepcopy(chosen) * random.choice((1, 2, 20)))


def wrap(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    value = here[key]
    here[key] = random.choice(
        ([value], {"a": value}, {str(value)[:50]: {}}, [value, value], str(value)[:1000])
    )


def unwrap(tree: Any, random: Random) -> None:
    here, key = _a_place(tree, random)
    value = here[key]
    if isinstance(value, dict) and value:
        here[key] = random.choice((list(value), list(value.values()), next(iter(value.values()))))
    elif isinstance(value, list) and value:
        here[key] = random.choice((value[0], {str(index): item for index, item in enumerate(value)}))


def number(tree: Any, random: Random) -> None:
    """A number where a number belongs, but which one?"""
    numeric = [(here, key) for here, key in places(tree) if isinstance(key, str) and key in NUMBER_KEYS]
    if numeric:
        here, key = random.choice(numeric)
        value = random.choice(odd_values.NUMBERS)
        is_list = isinstance(here[key], list)
        here[key] = [random.choice((value, *here[key])) for _ in here[key]] if is_list else value


def change(tree: Any, random: Random) -> None:
    """A change of the recipe at a place that takes one, of any kind."""
    maps = [here[key] for here, key in places(tree) if key in ("set", "baseline", "mini", "gpu", "paper")]
    maps = [each for each in maps if isinstance(each, dict)]
    if maps:
        random.choice(maps)[random.choice(NUMBER_KEYS)] = random.choice(odd_values.NUMBERS)


def large_design(tree: Any, random: Random) -> None:
    """A table with very many rows, columns, levels or seeds."""
    if not isinstance(tree, dict):
        return
    count = random.choice((3, 4, 6, 8, 12, 18, 30, 64, 700))
    tricks = [value for value in words()[1] if isinstance(value, str) and value.isidentifier()]
    chosen = [random.choice(tricks) for _ in range(count)]
    rates = [index / 1000 for index in range(1, count + 1)]
    design = random.choice(
        (
            {"design": "factorial", "tricks": chosen},
            {"design": "fractional", "tricks": chosen, "resolution": random.randint(3, 8)},
            {"design": "fractional", "tricks": [{"mixup": {"alpha": rate}} for rate in rates]},
            {"design": "leave_one_out", "tricks": chosen},
            {"design": "grid", "factors": dict.fromkeys(("lr", "decay", "weight_decay"), rates)},
            {"design": "grid", "factors": {"lr": rates, "epochs": rates, "cosine": ["off", "on"]}},
            {"design": "rows", "rows": [{"label": str(rate), "set": {"lr": rate}} for rate in rates]},
        )
    )
    table = {"title": "Large", **design}
    if random.random() < 0.3:
        table["columns"] = {f"c{index}": {"set": {"weight_decay": index / 1e5}} for index in range(count)}
    tables = tree.setdefault("tables", {})
    if isinstance(tables, dict):
        tables["large"] = table
    if random.random() < 0.3:
        tree["seeds"] = {"start": random.choice((1, 10, 1000)), "at_most": 1000}


def gentle(tree: Any, random: Random) -> None:
    """A number a little larger or smaller, or the items of a list in another order: often still a study."""
    found = [(here, key) for here, key in places(tree) if type(here[key]) in (int, float, list)]
    if found:
        here, key = random.choice(found)
        if isinstance(here[key], list):
            random.shuffle(here[key])
        elif abs(here[key]) < 1e15:
            here[key] = random.choice((here[key] * 2, here[key] / 2, here[key] + 1, here[key] - 1))


def options(tree: Any, random: Random) -> None:
    """A trick, model or data set with odd options."""
    uses = [(here, key) for here, key in places(tree) if key in ("add", "model", "data", "tricks")]
    if uses:
        here, key = random.choice(uses)
        name = random.choice([value for value in words()[1] if isinstance(value, str)])
        option = random.choice(
            (*NUMBER_KEYS, "teacher", "source", "partner", "folder", "side", "alpha", "eps")
        )
        here[key] = {name: {option: copy.deepcopy(random.choice(odd_values.ALL))}}


MUTATORS: tuple[Callable[[Any, Random], None], ...] = (
    *(odd_value, value_from_elsewhere, part_from_elsewhere, delete, rename, move, repeat, wrap, unwrap),
    *(number, number, change, large_design, options, gentle, gentle, gentle),
)
