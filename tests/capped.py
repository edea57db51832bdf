"""`python -m tests.capped`: whether torch keeps to the instruction set that the environment caps.

`make test-capped` calls it first: tests under a cap that nothing obeys would prove nothing. Where the CPU has
no more than the cap it says so, and the tests run as they would without one.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys

CAP = {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"}
MORE_THAN_AVX2 = re.compile("AVX-?512|AMX|AVX10")
LOOK = """
import torch
print("torch:", torch.backends.cpu.get_cpu_capability())
with torch.backends.mkldnn.verbose(1):
    torch.nn.Conv2d(16, 16, 3)(torch.zeros(32, 16, 32, 32))
"""


def instruction_sets(environment: dict[str, str]) -> dict[str, str]:
    """{"torch": ..., "oneDNN": ...} of a process with these variables; what says nothing is left out."""
    uncapped = {name: value for name, value in os.environ.items() if name not in CAP}
    done = subprocess.run(
        [sys.executable, "-c", LOOK], env=uncapped | environment, capture_output=True, text=True, check=True
    )
    found = {"torch": r"^torch: (.*)$", "oneDNN": r"^onednn_verbose.*\bisa:(.*)$"}
    matches = {name: re.search(pattern, done.stdout, re.MULTILINE) for name, pattern in found.items()}
    return {name: match[1] for name, match in matches.items() if match}


def main() -> int:
    """Print what is used; 1 where the variables are not set, or not obeyed."""
    missing = [f"{name}={value}" for name, value in CAP.items() if os.environ.get(name) != value]
    if missing:
        print(f"not capped: set {' '.join(missing)}", file=sys.stderr)
        return 1
    here, capped = instruction_sets({}), instruction_sets(CAP)
    for name, found in here.items():
        kept = "" if MORE_THAN_AVX2.search(found) else ": the cap changes nothing on this CPU"
        print(f"{name}: {capped.get(name, '?')} instead of {found}{kept}")
    disobeys = [name for name, found in capped.items() if MORE_THAN_AVX2.search(found)]
    if disobeys:
        print(f"the cap has no effect on {' and '.join(disobeys)}", file=sys.stderr)
    return 1 if disobeys else 0


if __name__ == "__main__":
    sys.exit(main())
