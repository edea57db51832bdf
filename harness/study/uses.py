"""A thing that a study names, with the options it gives: `mixup`, or `{mixup: {alpha: 0.4}}`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from harness.study.problems import unknown

MOST_USES = 100  # in one list


class Use(NamedTuple):
    """A trick, model or data set by name, and the options that differ from its defaults. Hashable."""

    name: str
    options: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        if not self.options:
            return self.name
        return f"{self.name} ({', '.join(f'{key}={value}' for key, value in self.options)})"


def short_names(uses: Iterable[Use]) -> dict[Use, str]:
    """Each use by its name alone, with its options where another one has the same name.

    >>> list(short_names([Use("cosine"), Use("mixup", (("alpha", 0.2),))]).values())
    ['cosine', 'mixup']
    """
    listed = list(uses)
    count = Counter(use.name for use in listed)
    return {use: use.name if count[use.name] == 1 else str(use) for use in listed}


def parse_use(value: Any) -> Use:
    """A name, or a map of one name to its options.

    Raises:
        ValueError: anything else.

    >>> parse_use({"mixup": {"alpha": 0.4}})
    Use(name='mixup', options=(('alpha', 0.4),))
    """
    if isinstance(value, Use):
        return value
    if isinstance(value, str):
        return Use(value)
    if isinstance(value, Mapping) and len(value) == 1:
        ((name, options),) = value.items()
        if isinstance(name, str) and isinstance(options, Mapping):
            return Use(name, tuple((str(key), plain(option)) for key, option in options.items()))
    raise ValueError(f"expected a name or {{name: {{option: value}}}}, got {value!r}")


def parse_uses(value: Any) -> tuple[Use, ...]:
    """One use, or a list of them, in order.

    >>> parse_uses("cosine"), parse_uses(["cosine", "mixup"])
    ((Use(name='cosine', options=()),), (Use(name='cosine', options=()), Use(name='mixup', options=())))
    """
    items = value if isinstance(value, list | tuple) and not isinstance(value, Use) else [value]
    if len(items) > MOST_USES:
        raise ValueError(f"expected at most {MOST_USES} of them, got {len(items)}")
    return tuple(parse_use(item) for item in items)


def fill_options(kind: str, use: Use, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Every option of a use: the given ones over the defaults, in the types of the defaults.

    Raises:
        ValueError: an option that does not exist.
    """
    filled = {name: plain(value) for name, value in defaults.items()}
    for name, value in use.options:
        if name not in filled:
            raise ValueError(f"{kind} '{use.name}': {unknown('option', name, filled)}")
        filled[name] = like(value, defaults[name])
    return filled


def like(value: Any, default: Any) -> Any:
    """`value` in the type of `default` where both mean the same: 1 and 1.0 are one value, hence one arm."""
    if type(value) is int and type(default) is float:
        return float(value)
    if isinstance(value, list | tuple):
        pattern = default[0] if isinstance(default, list | tuple) and default else None
        return tuple(like(item, pattern) for item in value)
    return value


def plain(value: Any) -> Any:
    """An option's value with lists as tuples, so that uses can be compared and hashed.

    Raises:
        ValueError: a map.
    """
    if isinstance(value, list | tuple):
        return tuple(plain(item) for item in value)
    if isinstance(value, Mapping):
        raise ValueError(f"an option is a plain value or a list, not a map: {dict(value)!r}")
    return value
