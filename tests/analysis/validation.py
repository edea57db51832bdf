"""The benchmarks that validate the statistics, importable from tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import targets
import validate_statistics
import validation_fixed
import validation_sequential

__all__ = ["targets", "validate_statistics", "validation_fixed", "validation_sequential"]
