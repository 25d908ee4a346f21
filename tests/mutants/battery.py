"""The tests that every mutant must fail, the quickest first."""

import itertools
import logging
from collections.abc import Callable

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from csjd.testing.machine_core import CoreMachine
from csjd.testing.machine_dispatcher import DispatcherMachine
from csjd.testing.machine_store import StoreMachine
from csjd.testing.simulation import simulate
from csjd.testing.storm import stress
from tests.mutants import store_scenes
from tests.mutants.scenes import SCENES, play

STORMS = 30
SIMULATIONS = 40
MACHINE_RUNS = 40
STORE_MACHINE_RUNS = 120


def _machine(
    machine: type[RuleBasedStateMachine], runs: int = MACHINE_RUNS, steps: int = 40
) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=runs,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


def _simulate(seed: int) -> None:
    simulate(seed)


def _tests() -> list[tuple[str, Callable[[], None]]]:
    scenes = [(each.__name__, lambda n=n: play(n)) for n, each in enumerate(SCENES)]
    storms = [(f"storm {seed}", lambda seed=seed: stress(seed)) for seed in range(STORMS)]
    runs = [(f"run {seed}", lambda seed=seed: _simulate(seed)) for seed in range(SIMULATIONS)]
    # In turns, so that a defect which only one of them can see does not wait for the other.
    mixed = [each for pair in itertools.zip_longest(storms, runs) for each in pair if each]
    return [
        *scenes,
        *mixed[:16],
        ("core machine", lambda: _machine(CoreMachine)),
        ("dispatcher machine", lambda: _machine(DispatcherMachine)),
        *mixed[16:],
    ]


def _tests_with_a_store() -> list[tuple[str, Callable[[], None]]]:
    scenes = [
        (each.__name__, lambda n=n: store_scenes.play(n))
        for n, each in enumerate(store_scenes.SCENES)
    ]
    machine = ("store machine", lambda: _machine(StoreMachine, STORE_MACHINE_RUNS, 50))
    return [*scenes, machine]


def first_catch() -> str | None:
    """Return which test fails first, and how; None if none does."""
    return _first_of(_tests())


def first_catch_with_a_store() -> str | None:
    """Return which test of a dispatcher with a store fails first, and how."""
    return _first_of(_tests_with_a_store())


def _first_of(tests: list[tuple[str, Callable[[], None]]]) -> str | None:
    logging.getLogger("csjd").setLevel(logging.CRITICAL)
    try:
        for name, test in tests:
            try:
                test()
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # noqa: ASYNC103  whatever it is
                return f"{name}: {_first(error)!r}"[:300]  # noqa: ASYNC104
    finally:
        logging.getLogger("csjd").setLevel(logging.NOTSET)
    return None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
