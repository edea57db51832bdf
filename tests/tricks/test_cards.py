"""Cards are read from module docstrings, and an incomplete one is refused."""

from __future__ import annotations

import re
import sys

import pytest

from harness.tricks import TRICKS
from harness.tricks.build import card, parse


@pytest.mark.parametrize("label", ["Paper", "Equation", "Acts on", "Defaults", "Differs"])
def test_a_card_without_a_line_is_refused(label: str) -> None:
    whole = sys.modules["harness.tricks.mixup"].__doc__ or ""
    assert parse(whole)[label]
    with pytest.raises(ValueError, match=f"lacks a text for: {label}"):
        parse(re.sub(rf"^{label}:", "Other:", whole, flags=re.MULTILINE))
    with pytest.raises(ValueError, match="a label twice"):
        parse(f"{whole}{label}: again\n")


def test_a_text_over_several_lines_becomes_one() -> None:
    found = card(TRICKS["label_smoothing"])
    assert found.summary == "Label smoothing: a share eps of each target is spread over the classes."
    assert found.defaults.endswith("the authors' code of he2019bag and torch.nn.CrossEntropyLoss)")
    assert found.citations == ("szegedy2016rethinking", "he2019bag")
