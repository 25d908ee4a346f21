"""The real dispatcher against the plain model, on virtual time: 10,000 random steps."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from csjd.testing.machine_dispatcher import DispatcherMachine

STEPS = 10_000
STEPS_PER_RUN = 50


def test_dispatcher_agrees_with_the_plain_model_after_every_step() -> None:
    run_state_machine_as_test(
        DispatcherMachine,
        settings=settings(
            max_examples=STEPS // STEPS_PER_RUN,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
