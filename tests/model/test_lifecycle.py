from csjd import DISPATCHER_LIFECYCLE, LIFECYCLE, DispatcherState, DispatcherStep, JobState, JobStep
from csjd._model.lifecycle import TERMINAL


def _reached(start: JobState) -> set[JobState]:
    found = {start}
    while True:
        more = {row[state] for row in LIFECYCLE.values() for state in found if state in row} - found
        if not more:
            return found
        found |= more


def test_every_step_has_a_row() -> None:
    assert set(LIFECYCLE) == set(JobStep)
    assert set(DISPATCHER_LIFECYCLE) == set(DispatcherStep)
    assert all(LIFECYCLE.values())


def test_every_state_is_reached_by_an_accepted_job() -> None:
    assert _reached(JobState.READY) == set(JobState)


def test_terminal_states_are_final_and_can_be_reached_from_all_others() -> None:
    for state in JobState:
        onward = {row[state] for row in LIFECYCLE.values() if state in row}
        assert bool(onward) is (state not in TERMINAL)
        assert _reached(state) & TERMINAL


def test_only_what_runs_succeeds_or_fails() -> None:
    runs = {JobState.RUNNING, JobState.DETACHED}
    assert set(LIFECYCLE[JobStep.SUCCEED]) == set(LIFECYCLE[JobStep.FAIL]) == runs
    assert set(LIFECYCLE[JobStep.INTERRUPT]) == runs


def test_every_pending_job_can_be_cancelled() -> None:
    assert set(LIFECYCLE[JobStep.CANCEL]) == set(JobState) - TERMINAL


def test_only_a_ready_job_starts() -> None:
    assert LIFECYCLE[JobStep.START] == {JobState.READY: JobState.RUNNING}


def test_promised_transitions_are_there() -> None:
    edges = {(before, after) for row in LIFECYCLE.values() for before, after in row.items()}
    assert edges >= {
        (JobState.SCHEDULED, JobState.READY),
        (JobState.READY, JobState.RUNNING),
        (JobState.RUNNING, JobState.SUCCEEDED),
        (JobState.RUNNING, JobState.FAILED),
        (JobState.RUNNING, JobState.CANCELLED),
        (JobState.RUNNING, JobState.SCHEDULED),
        (JobState.RUNNING, JobState.READY),
        (JobState.RUNNING, JobState.DETACHED),
    }


def test_closed_dispatcher_stays_closed_and_every_one_can_be_closed() -> None:
    for row in DISPATCHER_LIFECYCLE.values():
        assert row.get(DispatcherState.CLOSED, DispatcherState.CLOSED) is DispatcherState.CLOSED
    assert set(DISPATCHER_LIFECYCLE[DispatcherStep.CLOSE]) == set(DispatcherState)
