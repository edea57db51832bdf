"""The queue: needs first, longest chain first, and every job ends once, whatever happens to the others."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.scheduling.base import INTERRUPTED, Job
from harness.scheduling.queue import JobQueue, in_this_order
from harness.spec import DIVERGED, FAILED, FINISHED
from tests.scheduling.fakes import job

JOBS = [job(seed) for seed in range(12)]
OUTCOMES = st.sampled_from((FINISHED, FINISHED, FINISHED, FAILED, DIVERGED, INTERRUPTED))


@st.composite
def acyclic_jobs(draw: st.DrawFn) -> list[Job]:
    """Up to 12 jobs in any order, each needing some of a hidden order's earlier ones."""
    count = draw(st.integers(0, len(JOBS)))
    jobs = []
    for index in range(count):
        needs = draw(st.sets(st.integers(0, index - 1), max_size=3)) if index else set()
        cost = draw(st.integers(0, 9))
        needed = tuple(JOBS[need].run_id for need in sorted(needs))
        jobs.append(Job(spec=JOBS[index].spec, needs=needed, cost=cost))
    return draw(st.permutations(jobs))


def chain_length(run_id: str, jobs: dict[str, Job]) -> float:
    after = [chain_length(other, jobs) for other, each in jobs.items() if run_id in each.needs]
    return jobs[run_id].cost + max(after, default=0)


def nothing_before(run_id: str) -> bool:
    return False


@settings(max_examples=60, deadline=None, derandomize=True)
@given(acyclic_jobs(), st.data())
def test_every_job_ends_once_after_its_needs_and_the_longest_ready_one_goes_first(jobs, data):
    queue = JobQueue(jobs, nothing_before)
    by_id = {each.run_id: each for each in jobs}
    history: list[tuple[str, str]] = []
    for _ in range(3 * len(jobs) + 1):
        ready = {
            run_id: chain_length(run_id, by_id)
            for run_id, each in by_id.items()
            if run_id not in queue.ended
            and run_id not in queue.running
            and run_id not in queue.postponed
            and all(queue.ended.get(need) == FINISHED for need in each.needs)
        }
        assert queue.has_ready == bool(ready)
        if ready and len(queue.running) < 3 and data.draw(st.booleans(), label="start one"):
            taken = queue.take()
            assert taken in ready
            assert ready.pop(taken) == max([*ready.values(), chain_length(taken, by_id)])
        elif queue.running:
            run_id = data.draw(st.sampled_from(sorted(queue.running)), label="run")
            event = data.draw(st.integers(0, 9), label="worker dies, another has it, it ends")
            if event == 0:
                queue.put_back(run_id)
            elif event == 1:
                queue.postpone(run_id)
            else:
                history.append((run_id, data.draw(OUTCOMES, label="outcome")))
                queue.end(*history[-1])
        if data.draw(st.integers(0, 3), label="look again") == 0:
            queue.recall()
        assert queue.waiting + len(queue.running) + len(queue.ended) == len(jobs)
    queue.recall()
    while not queue.done:  # now without interference: nothing may hang
        run_id = queue.take() or next(iter(queue.running))
        history.append((run_id, FINISHED))
        queue.end(run_id, FINISHED)
    assert len({run_id for run_id, _ in history}) == len(history)
    assert set(queue.ended) == set(by_id)
    assert dict(history).items() <= queue.ended.items()
    assert queue.take() is None


@settings(max_examples=60, deadline=None, derandomize=True)
@given(acyclic_jobs(), st.data())
def test_what_needs_a_failed_run_fails_with_a_reason_and_nothing_else_does(jobs, data):
    queue = JobQueue(jobs, nothing_before)
    bad = data.draw(st.sets(st.sampled_from(sorted(queue.jobs)), max_size=3)) if jobs else set()
    while (run_id := queue.take()) is not None:
        queue.end(run_id, FAILED if run_id in bad else FINISHED)
    assert queue.done

    def doomed(run_id: str) -> bool:
        return any(need in bad or doomed(need) for need in queue.jobs[run_id].needs)

    refused = {refusal.run_id: refusal.message for refusal in queue.pop_refusals()}
    assert set(refused) == {run_id for run_id in queue.jobs if doomed(run_id)}
    for run_id, message in refused.items():
        assert any(need in message and queue.ended[need] == FAILED for need in queue.jobs[run_id].needs)
    assert {run_id for run_id, status in queue.ended.items() if status == FAILED} == bad - set(refused) | set(
        refused
    )
    assert queue.pop_refusals() == []


def test_a_need_that_finished_in_an_earlier_session_counts():
    teacher = job(0)
    student = job(1, needs=(teacher,))
    assert JobQueue([student], lambda run_id: run_id == teacher.run_id).take() == student.run_id

    queue = JobQueue([student], nothing_before)
    assert queue.take() is None
    assert queue.ended == {student.run_id: FAILED}
    [refusal] = queue.pop_refusals()
    assert teacher.run_id in refusal.message
    assert "has not finished" in refusal.message


def test_a_job_refused_at_the_start_takes_its_dependents_along_in_any_order():
    absent = job(0)
    first = job(1, needs=(absent,))
    second = job(2, needs=(first,))
    for jobs in ([first, second], [second, first]):
        queue = JobQueue(jobs, nothing_before)
        assert queue.done
        assert len(queue.pop_refusals()) == 2


def test_a_diverged_teacher_fails_its_student_in_these_words():
    teacher = job(0)
    student = job(1, needs=(teacher,))
    queue = JobQueue([teacher, student], nothing_before)
    queue.take()
    queue.end(teacher.run_id, DIVERGED)
    [refusal] = queue.pop_refusals()
    assert refusal.message == f"not started: a run it needs, {teacher.run_id}, diverged"


def test_an_interrupted_teacher_leaves_its_student_resumable():
    teacher = job(0)
    student = job(1, needs=(teacher,))
    queue = JobQueue([teacher, student], nothing_before)
    queue.take()
    queue.end(teacher.run_id, INTERRUPTED)
    assert queue.ended == {teacher.run_id: INTERRUPTED, student.run_id: INTERRUPTED}
    assert queue.pop_refusals() == []


def test_independent_jobs_go_longest_first_and_ties_in_the_given_order():
    jobs = [job(0, cost=1), job(1, cost=3), job(2, cost=3), job(3, cost=2)]
    queue = JobQueue(jobs, nothing_before)
    order = [queue.take() for _ in jobs]
    assert order == [jobs[index].run_id for index in (1, 2, 3, 0)]


def test_a_cheap_teacher_of_a_costly_student_is_not_left_to_the_end():
    teacher = job(0, cost=1)
    student = job(1, cost=10, needs=(teacher,))
    other = job(2, cost=5)
    assert JobQueue([other, student, teacher], nothing_before).take() == teacher.run_id


def test_a_run_given_twice_and_a_circle_are_refused_by_name():
    with pytest.raises(ValueError, match=f"{JOBS[0].run_id} is given twice"):
        JobQueue([JOBS[0], JOBS[0]], nothing_before)
    first = Job(spec=JOBS[0].spec, needs=(JOBS[1].run_id,))
    second = Job(spec=JOBS[1].spec, needs=(JOBS[0].run_id,))
    with pytest.raises(ValueError, match=f"circle: .*{JOBS[0].run_id}"):
        JobQueue([first, second], nothing_before)


@settings(deadline=None)
@given(jobs=acyclic_jobs())
def test_jobs_in_an_order_are_taken_in_just_this_order(jobs):
    """Where what is needed goes first, and whatever the costs were."""
    place = {each.run_id: number for number, each in enumerate(JOBS)}
    jobs = sorted(jobs, key=lambda each: place[each.run_id])
    queue = JobQueue(in_this_order(jobs), nothing_before)
    taken = []
    while not queue.done:
        run_id = queue.take()
        assert run_id is not None
        taken.append(run_id)
        queue.end(run_id, FINISHED)
    assert taken == [each.run_id for each in jobs]
