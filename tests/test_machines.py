"""The core and the real dispatcher against the plain model: 10,000 random steps each."""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from csjd.testing.machine_core import CoreMachine
from csjd.testing.machine_dispatcher import DispatcherMachine

STEPS = 10_000
STEPS_PER_RUN = 50


@pytest.mark.parametrize("machine", [CoreMachine, DispatcherMachine])
def test_agrees_with_the_plain_model_after_every_step(machine: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=STEPS // STEPS_PER_RUN,
            stateful_step_count=STEPS_PER_RUN,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        ),
    )
