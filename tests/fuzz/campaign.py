"""Plans thousands of damaged studies: `python -m tests.fuzz.campaign --cases 10000`.

Half of the cases are edits of a study's text, three in ten edits of its tree, two in ten drawn by hypothesis.
A case is a function of --seed and its number, so that `--only N` repeats one. Exit code 1: a bug was found.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import seed as hypothesis_seed
from hypothesis.configuration import set_hypothesis_home_dir

from tests.fuzz.bounds import limit_memory, peak_gb
from tests.fuzz.corpus import copy_plugins, seeds
from tests.fuzz.judge import BUG, PLANNED, Judge
from tests.fuzz.strategies import text_of, trees
from tests.fuzz.text_mutators import mutated_text
from tests.fuzz.tree_mutators import mutated_tree

MORE_GB = 2.0  # that planning any file may take beyond what the process has with torch imported
DRAWN = 100  # cases that hypothesis draws at once


def case(seed: int, number: int) -> bytes:
    """The bytes of one mutated study."""
    random = Random(f"{seed}/{number}")
    if number % 8 < 5:
        return mutated_text(random)
    return mutated_tree(random).encode("utf-8", errors="surrogatepass")


def drawn(seed: int, count: int) -> list[bytes]:
    """Studies that hypothesis draws."""
    found: list[bytes] = []

    @hypothesis_seed(seed)
    @settings(
        max_examples=count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(trees)
    def collect(tree: object) -> None:
        text = text_of(tree)
        if text is not None:
            found.append(text)

    collect()
    return found


def cases(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """(name, bytes): four mutated ones, then one that hypothesis drew, and so on."""
    waiting: list[bytes] = []
    batch = 0
    for number in range(count):
        if number % 5 == 4:
            if not waiting:
                batch += 1
                waiting = drawn(seed * 100_000 + batch, min(DRAWN, -(-count // 5)))
            yield f"drawn {number}", waiting.pop()
        else:
            yield str(number), case(seed, number)


def main(argv: list[str] | None = None) -> int:
    """Run the campaign and print its figures as one line of JSON, the last of the output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--only", type=int, help="judge this case alone, and show it")
    parser.add_argument("--keep", type=Path, help="a folder for the studies that showed a bug")
    args = parser.parse_args(argv)
    import torch  # noqa: F401 - so that its memory and its import do not count against a case

    with tempfile.TemporaryDirectory(prefix="fuzz") as folder:
        copy_plugins(Path(folder))
        set_hypothesis_home_dir(Path(folder) / "hypothesis")  # it keeps notes in the current folder otherwise
        judge = Judge(Path(folder))
        for seed in seeds():
            verdict = judge.judge(seed.text.encode())
            if verdict.kind != PLANNED:  # the first time, libraries are imported and make their own caches
                verdict = judge.judge(seed.text.encode())
            assert verdict.kind == PLANNED, (seed.name, verdict)
        limit_memory(MORE_GB)
        if args.only is not None:
            text = case(args.seed, args.only)
            sys.stdout.buffer.write(text)
            print("\n", judge.judge(text))
            return 0
        return _campaign(judge, args)


def _campaign(judge: Judge, args: argparse.Namespace) -> int:
    counts: Counter[str] = Counter()
    slowest = (0.0, "")
    began, began_cpu = time.monotonic(), time.process_time()
    for name, text in cases(args.seed, args.cases):
        case_began = time.process_time()
        verdict = judge.judge(text)
        slowest = max(slowest, (time.process_time() - case_began, name))
        counts[verdict.kind] += 1
        if verdict.kind == BUG:
            print(f"--- case {name}: {verdict.why}", flush=True)
            if args.keep:
                args.keep.mkdir(parents=True, exist_ok=True)
                (args.keep / f"{name.replace(' ', '_')}.yaml").write_bytes(text)
        gc.collect() if sum(counts.values()) % 500 == 0 else None
    figures = {
        "cases": args.cases,
        **counts,
        "time_s": round(time.monotonic() - began, 1),
        "core_s": round(time.process_time() - began_cpu, 1),
        "slowest_case_s": round(slowest[0], 2),
        "slowest_case": slowest[1],
        "peak_gb": round(peak_gb(), 2),
    }
    print(json.dumps(figures))
    return 1 if counts[BUG] else 0


if __name__ == "__main__":
    sys.exit(main())
