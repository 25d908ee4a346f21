"""The core against the plain model: 10,000 random steps."""

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from csjd.testing.machine_core import CoreMachine

STEPS = 10_000
STEPS_PER_RUN = 50


def test_core_agrees_with_the_plain_model_after_every_step() -> None:
    run_state_machine_as_test(
        CoreMachine,
        settings=settings(
            max_examples=STEPS // STEPS_PER_RUN,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
