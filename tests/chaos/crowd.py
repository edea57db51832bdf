"""Many processes that begin at the same moment on an empty folder.

Run as `python -m tests.chaos.crowd WHAT BASE COUNT`; prints one line of JSON. The processes are forks of one
that has imported everything, held back by a pipe until all are there: real imports would spread them over
minutes.
"""

from __future__ import annotations

import json
import os
import random
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from harness.runs.claims import Claims, Taken
from tests.chaos.orders import ENVIRONMENT

RUNS_TO_CLAIM = 64


def at_once(count: int, act: Callable[[int], int]) -> Counter[int]:
    """Exit code -> how many of `count` processes ended with it; each calls `act` with its own number."""
    gate, opener = os.pipe()
    children = []
    for number in range(count):
        child = os.fork()
        if child == 0:
            os.close(opener)
            os.read(gate, 1)
            os._exit(_code(act, number))
        children.append(child)
    os.close(opener)  # all of them read the end of the pipe now
    return Counter(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children)


def _code(act: Callable[[int], int], number: int) -> int:
    try:
        return act(number)
    except BaseException as error:
        print(f"{number}: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        return 99


def stores(base: Path, count: int) -> dict[str, object]:
    """Each opens an MLflow store that does not exist, and writes into it."""
    import mlflow  # noqa: F401  before the processes fork

    from harness.tracking.store import Store

    def act(number: int) -> int:
        Store.beside(base / "runs").client().create_experiment(f"study {number}")
        return 0

    codes = at_once(count, act)
    names = {each.name for each in Store.beside(base / "runs").client().search_experiments(max_results=1000)}
    return {"codes": codes, "wrong": count - len({f"study {number}" for number in range(count)} & names)}


def claims(base: Path, count: int) -> dict[str, object]:
    """Each tries to take every run; nobody lets one go before all have tried."""
    reader, writer = os.pipe()
    ready, leave = os.pipe()

    def act(number: int) -> int:
        os.close(leave)
        order = [f"run{index}" for index in range(RUNS_TO_CLAIM)]
        random.Random(number).shuffle(order)
        with Claims(base / "runs") as mine:
            taken = [run_id for run_id in order if isinstance(mine.take(run_id), Taken)]
            os.write(writer, "".join(f"{run_id}\n" for run_id in [*taken, "-"]).encode())
            os.read(ready, 1)  # ends when the parent has heard from all
        return 0

    listener = os.fork()
    if listener == 0:  # counts, then opens the gate by its end
        os._exit(_listen(reader, count, base))
    os.close(leave)
    codes = at_once(count, act)
    os.waitpid(listener, 0)
    taken = Counter((base / "taken.txt").read_text().split())
    wrong = [run_id for run_id, times in taken.items() if times > 1]
    return {"codes": codes, "wrong": len(wrong) + RUNS_TO_CLAIM - len(taken)}


def _listen(reader: int, count: int, base: Path) -> int:
    text = ""
    while text.count("-") < count:
        text += os.read(reader, 1 << 16).decode()
    (base / "taken.txt").write_text(text.replace("-\n", ""))
    return 0


def controllers(base: Path, count: int) -> dict[str, object]:
    """Each is `harness run` of the same study, training in its own process."""
    import mlflow  # noqa: F401  before the processes fork

    import harness.commands.run
    import harness.scheduling.local
    import harness.training.run
    from harness.cli import main as harness
    from tests.chaos.injector import install

    os.chdir(base / "work")
    os.environ[ENVIRONMENT] = str(base / "control")
    install()

    def act(_: int) -> int:
        output = os.open(base / "errors.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(output, 1)
        os.dup2(output, 2)
        return harness(["run", "chaos.yaml", "--on", "inline", "--no-report"])

    return {"codes": at_once(count, act), "wrong": 0}


KINDS = {"stores": stores, "claims": claims, "controllers": controllers}

if __name__ == "__main__":
    print(json.dumps(KINDS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))))
