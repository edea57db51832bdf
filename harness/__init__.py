"""An ablation-study harness for image classification: one study file in, one paper-style table out.

>>> from harness import compare, load, open_report        # for Python and notebooks; described in docs/api.md
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.api import compare as compare
    from harness.api import load as load
    from harness.api import open_report as open_report
    from harness.errors import StudyError as StudyError

__version__ = "0.1.0"
_WHERE = {  # imported when first used
    "compare": "api",
    "load": "api",
    "open_report": "api",
    "StudyError": "errors",
}


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return [*globals(), *_WHERE]
