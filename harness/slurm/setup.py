"""What a job runs before its agent: the lines of `setup:` in the cluster file, and how they failed."""

from __future__ import annotations

import contextlib
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.errors import counted

# What the cluster file may say. The lines run in the shell of the job's script, one after the other, so that
# modules and environments that they load are there for the agent and, by srun, on all its nodes.


READ_S = 10.0  # for bash to read a line


def commands(value: Any) -> tuple[str, ...]:
    """Commands of bash, one an entry or one a line of a text. Blank lines and comments are left out.

    Raises:
        ValueError: with words that follow the key's name.

    >>> commands("module purge\\n# of the new nodes\\nmodule load cuda/13\\n")
    ('module purge', 'module load cuda/13')
    """
    texts = value.splitlines() if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"is a list of commands such as [module load cuda/13], got {value!r}")
    found = tuple(text.strip() for text in texts if text.strip() and not text.lstrip().startswith("#"))
    for text in found:
        if len(text) > 1000 or not text.replace("\t", " ").isprintable():
            raise ValueError(f"has {text!r}; each entry is one whole command on one line")
        if wrong := _wrong_in_bash(text):
            raise ValueError(f"has '{text}', which bash does not understand: {wrong}")
    return found


def _wrong_in_bash(text: str) -> str:
    """What bash, which reads the command and does not run it, says against it; "" where there is no bash."""
    try:
        done = subprocess.run(  # noqa: S603
            ["bash", "-n", "-c", text],  # noqa: S607
            capture_output=True, text=True, timeout=READ_S, errors="replace", stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return ""
    said = done.stderr.strip().splitlines()
    return re.sub(r"^.*?line [0-9]+: ", "", said[0]) if done.returncode and said else ""


def interpreter(value: Any) -> str:
    """The words that start Python in a job, where it is not the one of the command that submits.

    Raises:
        ValueError: with words that follow the key's name.
    """
    with contextlib.suppress(ValueError):
        if isinstance(value, str) and len(value) <= 1000 and value.isprintable() and shlex.split(value):
            return value
    raise ValueError(f"is a command such as python or apptainer exec --nv torch.sif python, got {value!r}")


# In the script of the job. A line that fails ends the job: what it printed then lies in the folder of the
# submission under the names of the job's task, of the line and of its exit code.


def ours(snapshot: Path) -> list[str]:
    """The harness's own lines: which code the agent runs."""
    return [
        f'export PYTHONPATH={shlex.quote(str(snapshot))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        "export PYTHONSAFEPATH=1  # else -m would find a harness in the working folder first",
        "export OMP_NUM_THREADS=1",
        "export SLURM_EXPORT_ENV=ALL  # also where sbatch was told --export=NONE",
    ]


_BEGIN = """mkdir -p {folder}
harness_said={folder}/"${{SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}}_${{SLURM_ARRAY_TASK_ID:-0}}"
rm -f "$harness_said".*  # of an earlier life of this job
exec 8>&1 9>&2  # a line that calls `exit` ends with its own output redirected
harness_failed() {{
  harness_code=$?
  cat "$harness_said" >&8
  echo "setup line $harness_line, exit code $harness_code: $harness_text" >&9
  mv "$harness_said" "$harness_said.$harness_line.$harness_code"
  exit $((harness_code ? harness_code : 1))
}}
trap harness_failed EXIT"""
_LINE = """harness_line={number} harness_text={text}
eval "$harness_text" >"$harness_said" 2>&1 || exit
cat "$harness_said\""""
_END = """trap - EXIT
exec 8>&- 9>&-
rm -f "$harness_said\""""


def theirs(setup: Sequence[str], folder: Path) -> list[str]:
    """The lines of the cluster file, for the script of a job; `folder`: of the submission. None: no lines."""
    if not setup:
        return []
    lines = [_LINE.format(number=k, text=shlex.quote(text)) for k, text in enumerate(setup, start=1)]
    return [_BEGIN.format(folder=shlex.quote(str(folder / "setup"))), *lines, _END]


# How lines failed, as the folder of the submission says.


def failures(setup: Sequence[str], folder: Path, array_ids: Iterable[str]) -> list[str]:
    """In words, each way in which lines failed in the jobs of these arrays, with how many jobs they ended."""
    found: dict[str, int] = {}
    for array_id in array_ids:
        for path in sorted((folder / "setup").glob(f"{array_id}_*.*.*")):
            for text in _in_words(setup, path):
                found[text] = found.get(text, 0) + 1
    return [f"{text} (in {counted(jobs, 'job')})" if jobs > 1 else text for text, jobs in found.items()]


def _in_words(setup: Sequence[str], path: Path) -> Iterator[str]:
    number, code = path.name.rsplit(".", 2)[1:]
    if not (number.isdecimal() and code.isdecimal() and 0 < int(number) <= len(setup)):
        return
    how = f"failed with exit code {code}" if int(code) else "ended the job with exit code 0"
    try:
        lines = path.read_bytes()[-2000:].decode(errors="replace").splitlines()
    except OSError:
        lines = []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    said = "".join(each for each in last if each.isprintable())
    yield f"the setup line '{setup[int(number) - 1]}' {how}{': ' if said else ''}{said}"
