"""Plain scalars follow YAML 1.2's core schema, not PyYAML's YAML 1.1."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import yaml

from harness.errors import StudyError
from harness.study.yaml import CoreLoader, read_source, scalar


def value(text: str) -> object:
    return scalar(yaml.compose(text, Loader=CoreLoader))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("False", False),
        ("~", None),
        ("null", None),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-3", -3),
        ("1_000", "1_000"),
        ("1:30", "1:30"),
        ("2026-11-22", "2026-11-22"),
        ("1/8", "1/8"),
        ("1e-4", 1e-4),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("'5'", "5"),
        ("<<", "<<"),
        ("+ LR warmup", "+ LR warmup"),
    ],
)
def test_a_plain_scalar(text: str, expected: object):
    found = value(text)
    assert found == expected
    assert type(found) is type(expected)


def test_not_a_number_is_a_float():
    assert math.isnan(value(".nan"))  # type: ignore[arg-type]


def test_an_explicit_tag_must_fit_its_text():
    with pytest.raises(ValueError, match="neither true nor false"):
        value("!!bool maybe")


@pytest.mark.parametrize("text", ["[" * 5000, "[" * 100_000 + "]" * 100_000, "{a: " * 5000])
def test_nesting_without_end_is_refused_and_does_not_end_the_process(tmp_path: Path, text: str):
    path = tmp_path / "deep.yaml"
    path.write_text(text)
    with pytest.raises(StudyError, match="nested too deeply"):
        read_source(path, [])
