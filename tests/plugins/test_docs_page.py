"""The page about plugins is true: its examples load and keep the contracts, what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from harness.plugins import trick_contract
from harness.plugins.contract import check_plugin
from harness.plugins.install import only
from harness.plugins.load import NAMES, load
from harness.plugins.trick_contract import KEPT
from harness.training.run import Run
from harness.tricks import TRICKS

PAGE = (Path(__file__).parents[2] / "docs" / "plugins.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("table", NAMES)
def test_the_smallest_example_of_each_kind_keeps_the_contract(
    table: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(trick_contract, "TRICKS", {name: TRICKS[name] for name in ("mixup", "ema")})
    (text,) = [each for each in EXAMPLES if re.search(rf"^{table} = ", each, re.MULTILINE)]
    (tmp_path / "my_lab.py").write_text(text)
    plugin = load(tmp_path / "my_lab.py")
    with only([plugin]):
        found = list(check_plugin(plugin, tmp_path))
    assert found
    assert [each for each in found if each.outcome != KEPT] == []


def test_the_parts_of_a_run_that_the_page_names_are_those_it_has() -> None:
    named = set(re.findall(r"`run\.(\w+)", PAGE))
    assert named == {name for name in dir(Run) if not name.startswith("_")}
