"""Two processes that draw give what one gives; where forking is not safe, one draws."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest

from harness.reporting.figures import style
from harness.reporting.figures.style import draw_side_by_side
from tests.end_to_end.workplace import ROOT

SCRIPT = """
import os
from harness.reporting.figures import runs, style
from tests.reporting.sample import make_report

os_fork = os.fork
forks = []
os.fork = lambda: forks.append(1) or os_fork()
report = make_report()
together = runs.draw_all(report)
style._may_fork = lambda: False
count = len(forks)
alone = runs.draw_all(report)
assert len(forks) == count == style.PROCESSES, forks
assert len(together) > 5
assert together == alone
print("the same")
"""


@pytest.mark.campaign
@pytest.mark.skipif(not hasattr(os, "fork") or os.cpu_count() == 1, reason="one process draws here")
def test_two_processes_draw_the_same_pictures_in_the_same_order():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "the same\n", done.stderr


def test_a_process_with_other_threads_draws_alone():
    drawn_by = []

    def part():
        drawn_by.append(os.getpid())
        return []

    released = threading.Event()
    thread = threading.Thread(target=released.wait)
    thread.start()
    try:
        assert draw_side_by_side([part] * style.WORTH_IT) == []
    finally:
        released.set()
        thread.join()
    assert drawn_by == [os.getpid()] * style.WORTH_IT


def test_a_figure_that_cannot_be_drawn_is_an_error_and_not_a_gap(monkeypatch):
    monkeypatch.setattr(style, "_may_fork", lambda: True)

    def broken():
        raise ValueError("no such colour")

    with pytest.raises(ValueError, match="no such colour"):
        draw_side_by_side([list, list, broken, list])
