"""Studies drawn by hypothesis: mostly right in form, from the names that exist and odd values."""

from __future__ import annotations

from typing import Any

import yaml
from hypothesis import strategies as st

from harness.tricks import TRICKS
from tests.fuzz import odd_values
from tests.fuzz.corpus import words

_words = st.sampled_from([value for value in words()[1] if isinstance(value, str)])
_keys = st.sampled_from([key for key in words()[0] if isinstance(key, str)])
_odd = st.sampled_from(odd_values.ALL)
_scalars = st.one_of(_words, _odd, st.integers(), st.floats(), st.booleans(), st.none(), st.text(max_size=30))
_anything = st.recursive(
    _scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(_keys, inner, max_size=4)),
    max_leaves=12,
)
_labels = st.one_of(st.sampled_from("abcdef"), _words, st.text(min_size=1, max_size=20))
_tricks = st.sampled_from(sorted(set(TRICKS) - {"distillation", "fine_tuning", "mixed_ensemble"}))
_uses = st.one_of(
    *(_tricks, _tricks, _tricks, _tricks, _tricks, _words),
    st.dictionaries(_words, st.dictionaries(_keys, _scalars, max_size=2), min_size=1, max_size=1),
)
_right_sets = st.fixed_dictionaries(
    {},
    optional={
        "lr": st.floats(0.001, 2),
        "weight_decay": st.floats(0, 0.1),
        "epochs": st.floats(1, 300),
        "batch_size": st.sampled_from([64, 256, 1024]),
        "schedule": st.sampled_from(["cosine", "step", "constant", "exponential"]),
        "flip": st.floats(0, 1),
        "eval_crops": st.sampled_from([1, 10, 12, 144]),
        "norm_images": st.integers(0, 64),
        "read_out": st.sampled_from(["last_epoch", "median_of_last_5"]),
    },
)
_sets = st.one_of(*[_right_sets] * 5, st.dictionaries(_keys, _scalars, max_size=3))


def _mostly(right: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(*[right] * 15, _anything)


_numbers = _mostly(st.one_of(st.integers(1, 300), st.floats(0.001, 300)))
_size = st.fixed_dictionaries(
    {
        "data": _mostly(st.sampled_from(["fashion_mnist", "cifar10", "imagenet", "mnist", "generated"])),
        "resolution": _mostly(st.integers(8, 320)),
        "epochs": _numbers,
    },
    optional={
        "batch_scale": _mostly(st.sampled_from(["1/2", "1/8", 1, 0.25, 2])),
        "models": st.one_of(*[st.just({})] * 9, _anything),
        "set": _sets,
        "train_images": _mostly(st.integers(1, 5000)),
        "replace": st.one_of(*[st.just({})] * 9, _anything),
        "resolutions": st.dictionaries(st.integers(1, 500), st.integers(1, 500), max_size=2),
    },
)
_row = st.fixed_dictionaries(
    {"label": _mostly(_labels)},
    optional={
        "add": _mostly(st.one_of(_uses, st.lists(_uses, max_size=4))),
        "set": _mostly(_sets),
        "versus": _labels,
        "start_from": _mostly(st.sampled_from(["baseline", "x", "y"])),
        "paper": st.dictionaries(st.sampled_from(["top1", "top5", "status", "cost"]), _scalars, max_size=3),
        "cite": _mostly(st.booleans()),
        "columns": _mostly(st.lists(_labels, max_size=3)),
        "on": _labels,
        "note": _labels,
    },
)
_designs = st.sampled_from(
    ["rows", "stack", "add_one_in", "leave_one_out", "both_ends", "both_ways", "factorial", "fractional",
     "grid"]
)  # fmt: skip
_table = st.fixed_dictionaries(
    {"title": _mostly(_labels), "design": _mostly(_designs)},
    optional={
        "rows": _mostly(st.lists(_row, min_size=1, max_size=5)),
        "tricks": _mostly(st.lists(_uses, min_size=1, max_size=8)),
        "factors": _mostly(
            st.dictionaries(st.one_of(_keys, _words), st.lists(_scalars, max_size=6), max_size=4)
        ),
        "exclude": _anything,
        "columns": _mostly(
            st.dictionaries(_labels, st.fixed_dictionaries({}, optional={"set": _sets}), max_size=3)
        ),
        "target": _anything,
        "start_from": _mostly(st.sampled_from(["baseline", "x", "y"])),
        "resolution": _mostly(st.integers(3, 8)),
        "paper": _anything,
    },
)
_arm = st.fixed_dictionaries(
    {},
    optional={
        "from": _mostly(st.sampled_from(["baseline", "x", "y"])),
        "add": _uses,
        "set": _sets,
        "model": _uses,
    },
)
_models = st.sampled_from(["resnet50", "resnet18", "mobilenet_v1", "googlenet", "bn_mlp", "inception_v3"])
_recipes = st.sampled_from(["bag_of_tricks_baseline", "goyal", "googlenet", "bn_mlp", "mixup"])
_seeds = st.integers(1, 5) | st.fixed_dictionaries(
    {},
    optional={
        "start": st.integers(1, 5),
        "at_most": st.integers(1, 10),
        "looks": st.lists(st.integers(1, 10), max_size=4),
    },
)
_sizes = st.fixed_dictionaries({"mini": _size, "gpu": _size, "paper": _size})

trees = st.fixed_dictionaries(
    {
        "study": _mostly(st.from_regex(r"[a-z0-9][a-z0-9_-]{0,8}", fullmatch=True)),
        "question": _mostly(_labels),
        "baseline": _mostly(
            st.fixed_dictionaries({"model": _models, "recipe": _recipes}, optional={"set": _sets})
        ),
        "sizes": _mostly(_sizes),
        "tables": _mostly(st.dictionaries(_labels, _table, min_size=1, max_size=3)),
    },
    optional={
        "seeds": _mostly(_seeds),
        "arms": _mostly(st.dictionaries(st.sampled_from(["x", "y", "z"]), _arm, max_size=3)),
        "metric": _mostly(st.sampled_from(["top1", "top5"])),
        "claims": _anything,
        "plugins": _anything,
        "expect": _anything,
    },
)


def text_of(tree: Any) -> bytes | None:
    """The study as YAML; None for what YAML or UTF-8 cannot say."""
    try:
        return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode()
    except (ValueError, UnicodeEncodeError):
        return None
