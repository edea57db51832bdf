"""`harness doctor`, `harness check-plugin`: whether a machine, its folders and services are fit, or a plugin.

Every check of a machine has a limit on its time and a thread of its own, so that a file system or a server
that hangs costs one line, not the answer. Nothing is changed, but for a scratch folder that is removed again.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import json
import math
import os
import queue
import re
import shutil
import sqlite3
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from harness.commands import machine
from harness.commands.machine import FAIL, OK, WARN, Finding, ProgramError, answer_of, last_line, probe
from harness.commands.workspace import Workspace, workspace
from harness.data import DATASETS
from harness.errors import DONE, SOME_FAILED, Problem, StudyError, masked
from harness.plugins.install import only
from harness.plugins.load import PluginError, load

if TYPE_CHECKING:
    from harness.slurm.sbatch import Accepted
    from harness.slurm.submission import Group, Submission

# The MLflow store: whether it can be reached, and whether this MLflow can write to it. Changes nothing.


ANSWER_S = 5.0
QUICK_CHECK_S = 5.0
DATABASES = ("postgresql", "postgres", "mysql", "mssql")
NOTHING_LOST = "no run needs it while it trains, and `harness sync` mirrors them later"


def store(place: Workspace) -> Iterator[Finding]:
    """One line about the store, whichever kind it is."""
    uri = place.store().uri
    shown = masked(uri)
    scheme = urlsplit(uri).scheme
    if scheme in ("http", "https"):
        yield server(uri, shown)
    elif scheme == "sqlite":
        database = place.store().database
        assert database is not None
        yield sqlite(database)
    elif scheme.split("+")[0] in DATABASES:
        yield sql_server(uri, shown)
    else:
        yield Finding("mlflow", WARN, f"{shown}: not a kind of store that is checked", NOTHING_LOST)


def server(uri: str, shown: str) -> Finding:
    """A tracking server, asked for its health."""
    start_s = time.perf_counter()
    try:
        with urllib.request.urlopen(health_of(uri), timeout=ANSWER_S) as answer:  # noqa: S310  http(s) only
            body = answer.read(100).decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        mend = "MLFLOW_TRACKING_USERNAME and _PASSWORD, or MLFLOW_TRACKING_TOKEN" * (error.code in (401, 403))
        return Finding(
            "mlflow", FAIL, f"{shown} answers {error.code} {error.reason}", mend or "look at its log"
        )
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = masked(str(getattr(error, "reason", error)), uri)
        says = f"{shown} does not answer: {reason}"
        return Finding("mlflow", FAIL, says, f"start it, or correct MLFLOW_TRACKING_URI; {NOTHING_LOST}")
    if body != "OK":
        mend = "correct MLFLOW_TRACKING_URI: this does not look like a tracking server of MLflow"
        return Finding("mlflow", WARN, f"{shown} answers its health with {body[:40]!r}", mend)
    return Finding("mlflow", OK, f"{shown} is healthy ({(time.perf_counter() - start_s) * 1000:.0f} ms)")


def health_of(uri: str) -> urllib.request.Request:
    """The question for its health, with the credentials that MLflow itself would send."""
    parts = urlsplit(uri)
    address = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])).rstrip("/")
    request = urllib.request.Request(f"{address}/health")  # noqa: S310  http(s) only
    user = unquote(parts.username or "") or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = unquote(parts.password or "") or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        basic = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_header("Authorization", f"Basic {basic}")
    elif token := os.environ.get("MLFLOW_TRACKING_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    return request


def sqlite(database: Path) -> Finding:
    """A SQLite file, read only: whole, and of this MLflow's schema."""
    if not database.exists():
        return Finding("mlflow", OK, f"{database} is made by the first `harness run`")
    rebuild = f"it is a mirror: delete {database} and run `harness sync`"
    try:
        with closing(
            sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=ANSWER_S)
        ) as connection:
            damage = _damage(connection)
            found = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as error:
        return Finding("mlflow", FAIL, f"{database} cannot be read: {error}", rebuild)
    if damage:
        return Finding("mlflow", FAIL, f"{database} is damaged: {damage}", rebuild)
    return of_this_version(str(database), found[0] if found else None, rebuild)


def _damage(connection: sqlite3.Connection) -> str:
    """What SQLite's quick check says against the file; a very large one is looked at for a few seconds."""
    deadline_s = time.monotonic() + QUICK_CHECK_S
    connection.set_progress_handler(lambda: time.monotonic() > deadline_s, 10_000)
    try:
        [answer] = connection.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        return ""
    finally:
        connection.set_progress_handler(None, 0)
    return "" if answer == "ok" else str(answer)


def of_this_version(shown: str, found: str | None, mend: str) -> Finding:
    """Whether the schema in the store is the one that the installed MLflow writes."""
    try:
        facts = probe("mlflow")
    except ProgramError as error:
        return Finding("mlflow", FAIL, str(error), "pip install --force-reinstall mlflow")
    return compared(shown, facts["mlflow"], facts["schema"], found, mend)


def compared(shown: str, version: str, schema: str | None, found: str | None, mend: str) -> Finding:
    """schema: what this MLflow writes, None where it does not tell; found: what the store has."""
    about = f"{shown}, MLflow {version}, schema {found}"
    if found is None or schema is None or found == schema:
        return Finding("mlflow", OK, about)
    return Finding("mlflow", FAIL, f"{about}, but this MLflow writes {schema}", mend)


def sql_server(uri: str, shown: str) -> Finding:
    """A database server, asked for its schema."""
    try:
        facts = probe("database", MLFLOW_TRACKING_URI=uri)
    except ProgramError as error:
        says = masked(str(error), uri)
        mend = f"start it, or correct MLFLOW_TRACKING_URI; {NOTHING_LOST}"
        return Finding("mlflow", FAIL, f"{shown} does not answer: {says}", mend)
    return compared(
        shown, facts["mlflow"], facts["schema"], facts["found"], "mlflow db upgrade URI, after a backup"
    )


# Slurm, as far as `harness run --on slurm` needs it. A machine without Slurm commands is in order.


NEEDED = ("sbatch", "squeue", "scancel", "scontrol")
ALSO = ("sinfo", "sacct")
SYSTEM_CONFIGURATION = Path("/etc/slurm/slurm.conf")
LIMIT_S = 10.0
NOT_CONFIGURED = "Could not establish a configuration source"
SHOWN = ("MaxArraySize", "MaxJobCount", "PreemptMode", "JobRequeue")
NO_USR2 = "preempted runs get SIGTERM only, and what they checkpoint in the grace time"


def slurm(_place: Workspace) -> Iterator[Finding]:
    """Commands, the controller with its limits, the nodes, a job that is only tried, and accounting."""
    present = [name for name in (*NEEDED, *ALSO) if shutil.which(name)]
    if not present:
        yield Finding("slurm", OK, "no Slurm commands here; `--on slurm` needs a machine that has them")
        return
    absent = [name for name in NEEDED if name not in present]
    if absent:
        mend = "add the folder of the other Slurm commands to PATH"
        yield Finding("slurm", WARN, f"{present[0]} is here, but not {', '.join(absent)}", mend)
        return
    try:
        yield controller(configuration(answer_of(["scontrol", "show", "config"], LIMIT_S)))
    except ProgramError as error:
        yield no_controller(str(error))
        return
    yield from nodes(present)
    yield trial()
    yield accounting(present)


def no_controller(message: str) -> Finding:
    """Commands without a cluster are a remark; a cluster that does not answer is a fault."""
    configured = os.environ.get("SLURM_CONF") or SYSTEM_CONFIGURATION.exists()
    if NOT_CONFIGURED in message and not configured:
        mend = "`--on slurm` needs a login node of a cluster, or SLURM_CONF"
        return Finding("slurm", WARN, "the commands are here, but no cluster is configured", mend)
    mend = "ask the administrators; jobs that run go on, and `harness status` works without it"
    return Finding("slurm", FAIL, f"the controller does not answer: {message}", mend)


def configuration(text: str) -> dict[str, str]:
    """`scontrol show config` as a map.

    >>> configuration("MaxArraySize            = 1001\\nPreemptMode = REQUEUE")["MaxArraySize"]
    '1001'
    """
    return dict(re.findall(r"^\s*(\w+)\s*= (.*?)\s*$", text, re.MULTILINE))


def controller(settings: dict[str, str]) -> Finding:
    """Its version, and the limits that arrays and preemption have to keep to."""
    about = ", ".join(f"{name} {settings[name]}" for name in SHOWN if name in settings)
    version, name = settings.get("SLURM_VERSION", "version unknown"), settings.get("ClusterName", "?")
    says = f"{version}, cluster {name}: {about}"
    parameters = settings.get("SlurmctldParameters", "") + settings.get("PreemptParameters", "")
    preempts = settings.get("PreemptType", "preempt/none") not in ("preempt/none", "(null)")
    if preempts and "send_user_signal" not in parameters:
        says += f"; {NO_USR2}"
    return Finding("slurm", OK, says)


def nodes(present: list[str]) -> Iterator[Finding]:
    """How many nodes are in which state, all partitions together."""
    if "sinfo" not in present:
        return
    try:
        lines = answer_of(["sinfo", "--noheader", "--Node", "--format=%N %T"], LIMIT_S).splitlines()
    except ProgramError as error:
        yield Finding("slurm nodes", FAIL, str(error), "ask the administrators")
        return
    states = Counter(dict(line.split()[:2] for line in lines if len(line.split()) > 1).values())
    says = ", ".join(f"{count} {state}" for state, count in sorted(states.items())) or "no node"
    usable = any(state.startswith(("idle", "mix", "alloc", "comp", "resv")) for state in states)
    mend = "" if usable else "jobs will wait: ask the administrators, or sinfo -R for the reasons"
    yield Finding("slurm nodes", OK if usable else WARN, says, mend)


def trial() -> Finding:
    """Whether a job would be accepted; nothing is submitted."""
    try:
        answer_of(["sbatch", "--test-only", "--wrap=true"], LIMIT_S)
    except ProgramError as error:
        mend = "name a partition, account or qos in the cluster file"
        return Finding("slurm jobs", WARN, f"a job without options would be refused: {error}", mend)
    return Finding("slurm jobs", OK, "a job without options would be accepted")


def accounting(present: list[str]) -> Finding:
    """sacct is a convenience: heartbeats in the run folders say what is alive."""
    if "sacct" not in present:
        return Finding("slurm accounting", OK, "no sacct; the run folders say what is alive")
    try:
        answer_of(
            ["sacct", "--noheader", "--parsable2", "--format=JobID", "--starttime=now-1minutes"], LIMIT_S
        )
    except ProgramError as error:
        mend = "nothing to do: the run folders say what is alive"
        return Finding("slurm accounting", WARN, f"sacct does not answer: {error}", mend)
    return Finding("slurm accounting", OK, "sacct answers")


# Which data sets are ready on this machine.


def data(place: Workspace) -> Iterator[Finding]:
    """One line per data set. One that is not here is no fault: only studies that use it need it."""
    for name, entry in sorted(DATASETS.items()):
        try:
            missing = entry.missing(entry.args, place.data_dir)
        except (OSError, ValueError) as error:
            mend = f"put it anew into {place.data_dir}, or --data DIR"
            yield Finding(f"data {name}", FAIL, str(error), mend)
            continue
        if missing is None:
            yield Finding(f"data {name}", OK, "ready")
        elif "/" not in name:  # torchvision's many sets
            says = "not here; only studies that use it need it (`harness data` says what to put where)"
            yield Finding(f"data {name}", OK, says, missing)


# One short job on the cluster, and what it finds where runs would be trained.


JOB_S = 300  # its time limit
IN_QUEUE_S = 900.0  # for the job to begin and end; then it is cancelled
LOOK_EVERY_S = 0.2
UNSEEN_S = 10.0  # for what a job wrote to be seen here after it has left the queue
CLOCKS_S = 2.0


def in_a_job(place: Workspace, cluster_file: Path | None) -> Iterator[Finding]:
    """Submits a job with the resources of the cluster file, waits for it, and says what it found.

    Raises:
        StudyError: a mistake in the cluster file, or the folder of runs cannot be written.
    """
    from harness.runs import provenance
    from harness.slurm.cluster import find_cluster
    from harness.slurm.submission import FOLDER, Group, Order, Submission, draft, new_token

    cluster = find_cluster(cluster_file)
    resources = replace(cluster.resources, nodes=1, processes=1, runs_side_by_side=1, time_s=JOB_S)
    group = Group(name="g1", resources=resources, level=0, width=1)
    folder = place.runs_dir / FOLDER / f"doctor-{new_token()}"
    try:
        snapshot = provenance.take_snapshot(place.runs_dir, provenance.package())
        (folder / "logs").mkdir(parents=True)
        folder.chmod(0o700)
    except OSError as error:
        raise StudyError([Problem(str(place.runs_dir), 0, f"cannot be written: {error}")]) from None
    order = Order(
        study="", size="", data_dir=str(place.data_dir), exact=True, python=sys.executable,
        snapshot=str(snapshot), cluster_file=cluster.path,
    )  # fmt: skip
    try:
        yield from _of_the_job(Submission(folder, draft(folder, order, [group])), group)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _of_the_job(submission: Submission, group: Group) -> Iterator[Finding]:
    from harness.slurm.queue import on_cluster
    from harness.slurm.sbatch import Chunk, NoAnswer, Refused, script, submit

    file, into = submission.folder / "g1.0.sh", submission.folder / "found.json"
    places = ("--runs", str(submission.runs_dir), "--data", str(submission.data_dir))
    words = ("doctor", "--into", str(into), *places)
    try:
        chunk = Chunk(group=group, number=0, tasks=1)
        file.write_text(script(submission, chunk, words=words))
        job = submit(file)
    except (Refused, ValueError) as refusal:
        yield Finding("slurm job", FAIL, f"not accepted: {refusal}", f"correct {submission.cluster_file}")
        return
    except NoAnswer as silence:
        yield Finding("slurm job", FAIL, f"Slurm does not answer: {silence}", "try again later")
        return
    yield Finding(
        "slurm job", OK, f"job {job.job_id} is submitted, with what {submission.cluster_file} asks for"
    )
    start_s, trouble = time.monotonic(), "it was interrupted"
    try:
        trouble = _wait(submission, group, job, into)
    finally:
        if trouble:
            with suppress(ProgramError):
                answer_of(["scancel", *on_cluster(job.cluster), job.job_id], LIMIT_S)
    if trouble:
        yield Finding("slurm job", FAIL, f"job {job.job_id}: {trouble}")
        return
    yield from _found(json.loads(into.read_text()), group, submission.folder, time.monotonic() - start_s)


def _wait(submission: Submission, group: Group, job: Accepted, into: Path) -> str:
    """Until the job has written what it found; "", or what became of it."""
    from harness.slurm.queue import EVERY_S, ask_queue, log_of
    from harness.slurm.setup import failures

    start_s = time.monotonic()
    ask_s, gone_s, waits = start_s + EVERY_S / 3, math.inf, ""
    while into.name not in os.listdir(submission.folder):  # exists() may be answered from a cache of NFS
        now_s = time.monotonic()
        if failed := failures(group.resources.setup, submission.folder, [job.job_id]):
            return failed[0]
        if now_s > gone_s + UNSEEN_S:
            log = log_of(submission, [job.job_id])
            no_log = f"it ended and left nothing in {submission.folder}: no node sees it, or none began it"
            return f"it ended without an answer; its log ends with: {last_line(log)}" if log else no_log
        if now_s > start_s + IN_QUEUE_S:
            return f"it did not end within {IN_QUEUE_S / 60:g} min{waits}, and was cancelled"
        if now_s > ask_s:
            ask_s = now_s + EVERY_S
            queue = ask_queue(submission.runs_dir, EVERY_S / 2, {job.cluster})
            tasks = None if queue is None else queue.of_name(submission.job_name(group.name))
            gone_s = min(gone_s, now_s) if tasks == [] else math.inf
            waits = f" ({tasks[0].state}, {tasks[0].reason})" if tasks else ""
        time.sleep(LOOK_EVERY_S)
    return ""


def _found(said: dict[str, Any], group: Group, folder: Path, took_s: float) -> Iterator[Finding]:
    """What the job says, and how it compares with this machine."""
    from harness.slurm.agent import too_few_gpus

    at, wanted = f"on {said['node']}", group.resources.gpus
    yield Finding(
        f"{at}: job", OK, f"answered {took_s:.0f} s after it was submitted; Python is {said['python']}"
    )
    yield Finding(f"{at}: folder", OK, "what is written there is seen here")
    if wanted:
        seen = said["gpus"]
        mend = "" if seen >= wanted else too_few_gpus(group.resources, seen, said["environment"])
        yield Finding(f"{at}: gpus", FAIL if mend else OK, mend or f"{seen} of {wanted} asked for")
    ahead_s = machine.skew_of(folder) - said["skew_s"]
    way = "ahead of" if ahead_s > 0 else "behind"
    is_close = abs(ahead_s) <= CLOCKS_S
    says = (
        f"within {CLOCKS_S:g} s of this machine's"
        if is_close
        else f"{abs(ahead_s):.0f} s {way} this machine's"
    )
    mend = "" if is_close else "synchronise the clocks (NTP): times in logs will not agree"
    yield Finding(f"{at}: clock", OK if is_close else WARN, says, mend)
    for check in said["checks"]:
        yield Finding(f"{at}: {check['name']}", check["level"], check["says"], check["mend"])


def answer_into(file: Path, place: Workspace) -> int:
    """In the job: what is found there, into a file."""
    from harness.runs.folder import write_json
    from harness.runs.provenance import detect_devices
    from harness.slurm.agent import SlurmJob

    checks = [
        asdict(finding) for finding in examine(place, tuple(each for each in CHECKS if each[0] in IN_A_JOB))
    ]
    names = ("CUDA_VISIBLE_DEVICES", "SLURMD_NODENAME")
    said = {
        "node": SlurmJob.of().node,
        "python": sys.executable,
        "skew_s": machine.skew_of(file.parent),
        "gpus": sum(each != "cpu" for each in detect_devices()),
        "environment": {name: os.environ[name] for name in names if name in os.environ},
        "checks": checks,
    }
    write_json(file, said)
    return DONE


Check = Callable[[Workspace], Iterator[Finding]]

STYLES = {OK: "green", WARN: "bold yellow", FAIL: "bold red"}
IMPORTS_S, FILES_S = 100.0, 30.0
CHECKS: tuple[tuple[str, Check, float], ...] = (  # its name, the check, its limit in seconds
    ("python", machine.python, FILES_S),
    ("torch", machine.torch, IMPORTS_S),
    ("kernels", machine.kernels, IMPORTS_S),
    ("machine", machine.cores_and_memory, FILES_S),
    ("speed", machine.speed, FILES_S),
    ("disk", machine.space, FILES_S),
    ("file system", machine.file_system, FILES_S),
    ("submissions", machine.privacy, FILES_S),
    ("slurm", slurm, 5 * LIMIT_S),
    ("mlflow", store, IMPORTS_S),
    ("data", data, FILES_S),
    ("pdf", machine.typesetting, IMPORTS_S),
    ("environment", machine.environment, FILES_S),
)
IN_A_JOB = frozenset({"python", "torch", "machine", "speed", "disk", "file system", "data", "environment"})


def main(args: argparse.Namespace) -> int:
    if args.into is not None:
        return answer_into(args.into, workspace(args))
    findings = examine(workspace(args)) if args.on is None else on_slurm(workspace(args), args.cluster)
    if args.json:
        found = list(findings)
        checks = [asdict(finding) for finding in found]
        print(json.dumps({"fit": not any(each.level == FAIL for each in found), "checks": checks}, indent=1))
    else:
        from harness.commands.progress import show_findings

        found = show_findings(findings, STYLES)
    return SOME_FAILED if any(finding.level == FAIL for finding in found) else DONE


def on_slurm(place: Workspace, cluster_file: Path | None) -> Iterator[Finding]:
    """What this machine says of the cluster, then what a job finds there."""
    yield from examine(place, tuple(each for each in CHECKS if each[0] == "slurm"))
    yield from in_a_job(place, cluster_file)


def examine(place: Workspace, checks: tuple[tuple[str, Check, float], ...] = CHECKS) -> Iterator[Finding]:
    """What every check finds, in the order of the table; they work side by side."""
    start_s = time.monotonic()
    answers = [(name, limit_s, _begin(check, place)) for name, check, limit_s in checks]
    for name, limit_s, answer in answers:
        try:
            found = answer.get(timeout=max(0.0, start_s + limit_s - time.monotonic()))
        except queue.Empty:
            mend = "something hangs: a mount, a server or a program; try again, then look there"
            found = [Finding(name, FAIL, f"no answer within {limit_s:g} s", mend)]
        yield from found


def _begin(check: Check, place: Workspace) -> queue.SimpleQueue[list[Finding]]:
    """A thread that does not keep the process alive; its queue gets all it finds when it is done."""
    answer: queue.SimpleQueue[list[Finding]] = queue.SimpleQueue()

    def work() -> None:
        found: list[Finding] = []
        try:
            for finding in check(place):
                found.append(finding)
        except Exception as error:  # whatever it is, the other checks answer
            name = getattr(check, "__name__", "check").replace("_", " ")
            says = f"the check itself ended with {type(error).__name__}: {error}"
            found.append(Finding(name, FAIL, says, "please report it with this line"))
        answer.put(found)

    threading.Thread(target=work, daemon=True).start()
    return answer


# `harness check-plugin`: does a plugin keep the contracts that the harness's own tables are tested with?


WORDS = {"kept": "kept       ", "broken": "BROKEN     ", "skipped": "not checked"}


def check_plugin_file(args: argparse.Namespace) -> int:
    try:
        plugin = load(args.file)
        from harness.plugins.contract import check_plugin

        print(f"{plugin.name}, sha256 {plugin.sha256}", flush=True)
        with only([plugin]):
            outcomes = list(_show(check_plugin(plugin, workspace(args).data_dir)))
    except PluginError as error:
        print(error, file=sys.stderr)
        return SOME_FAILED
    counts = {word: outcomes.count(word) for word in WORDS}
    print(
        f"\n{len(outcomes)} checks: {counts['kept']} kept, {counts['broken']} broken, "
        f"{counts['skipped']} not checked"
    )
    return SOME_FAILED if counts["broken"] else DONE


def _show(findings: Iterable) -> Iterable[str]:
    """Print each finding as it comes; yields the outcomes."""
    for subject, group in groupby(findings, key=lambda finding: finding.subject):
        print(f"\n{subject}")
        for finding in group:
            why = f": {finding.why}" if finding.why else ""
            print(f"  {WORDS[finding.outcome]}  {finding.claim}{why}", flush=True)
            if finding.mend:
                print(f"               mend: {finding.mend}", flush=True)
            yield finding.outcome
