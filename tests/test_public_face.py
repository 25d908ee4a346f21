"""The public face: the promised names, with the promised parameters, all documented."""

import enum
import inspect
from typing import Any

import attrs
import pytest

import csjd

PUBLIC = {name: value for name, value in vars(csjd).items() if not name.startswith("_")}
ALIASES = {"BatchLoaderEvent", "CacheEvent", "Handler", "Observer", "Outcome"}
MODULES = {"caching", "batching", "brokers", "metrics", "logs", "tracing", "web", "cli", "testing"}
EXPORTED = {name: value for name, value in PUBLIC.items() if name not in MODULES}

EMPTY = inspect.Parameter.empty

# Parameter: default, EMPTY when it must be given; a star begins those given by name.
SIGNATURES: dict[str, dict[str, Any]] = {
    "open_dispatcher": {
        "nursery": EMPTY,
        "config": None,
        "*": None,
        "registry": None,
        "store": None,
        "observers": (),
    },
    "Dispatcher.register": {
        "type": EMPTY,
        "handler": EMPTY,
        "*": None,
        "timeout": None,
        "retry": None,
        "retry_on_timeout": True,
        "on_failure": "continue",
        "payload": None,
    },
    "Dispatcher.handler": {"type": EMPTY, "*": None, "timeout": None, "on_failure": "continue"},
    "Registry.handler": {"type": EMPTY, "*": None, "timeout": None, "on_failure": "continue"},
    "Dispatcher.start": {},
    "Dispatcher.stop": {"*": None, "grace": None},
    "Dispatcher.submit": {"job": EMPTY, "*": None, "wait": False, "delay": 0},
    "Dispatcher.submit_batch": {"jobs": EMPTY, "*": None, "wait": False},
    "Dispatcher.cancel": {"job_id": EMPTY},
    "Dispatcher.pause": {"*": None, "type": None, "session": None},
    "Dispatcher.resume": {"*": None, "type": None, "session": None},
    "Dispatcher.resize": {"workers": EMPTY},
    "Dispatcher.add_worker": {},
    "Dispatcher.remove_worker": {"worker_id": EMPTY},
    "Dispatcher.metrics": {},
    "Dispatcher.worker_stats": {},
    "Dispatcher.session_info": {"session": EMPTY},
    "Dispatcher.session_distribution": {},
    "Dispatcher.dead_letters": {},
    "Dispatcher.requeue": {"job_id": EMPTY},
    "Dispatcher.discard": {"job_id": EMPTY},
    "Receipt.outcome": {},
    "Receipt.result": {},
    "Receipt.cancel": {},
    "Attempt.time_left": {},
    "Attempt.extend": {"seconds": EMPTY},
    "Attempt.progress": {"value": EMPTY},
    "permanent": {"error": EMPTY},
}
AWAITED = {
    f"Dispatcher.{name}"
    for name in (
        "start stop submit submit_batch resize dead_letters requeue discard".split()  # noqa: SIM905
    )
} | {"Receipt.outcome", "Receipt.result"}

ATTRIBUTES = {
    "Job": "type id payload session priority max_attempts timeout run_at created_at metadata",
    "Attempt": "number max_attempts deadline worker",
    "Receipt": "job",
    "Succeeded": "job attempts duration result late",
    "Failed": "job attempts duration error",
    "TimedOut": "job attempts duration error",
    "Cancelled": "job attempts duration error",
    "BatchReport": "accepted duplicates invalid rejected errors receipts",
    "StopReport": "finished unfinished stuck",
    "Retry": "max_attempts min_delay max_delay factor jitter retry_on",
    "Config": (
        "workers lanes max_pending max_pending_per_session max_sessions retry job_timeout"
        " duplicate_window detach_budget detach_grace stop_grace virtual_nodes load_factor"
        " session_idle max_crashes commit_grace max_payload history"
    ),
    "MetricsSnapshot": "accepted succeeded failed timed_out cancelled live panics",
    "Dispatcher": "state last_stop",
}

ERRORS = [
    "CsjdError",
    "InvalidJobError",
    "DuplicateJobError",
    "QueueFullError",
    "DispatcherClosedError",
    "DispatcherNotStartedError",
    "HandlerNotFoundError",
    "JobFailedError",
    "JobCancelledError",
    "WouldDeadlockError",
    "StuckHandlersError",
    "DispatcherCrashedError",
    "JobStoreError",
    "JobStoreLockedError",
    "JobStoreClosedError",
    "JobStoreCorruptError",
    "BatchLoaderClosedError",
    "MissingBatchResultError",
    "PermanentError",
    "Snooze",
    "RetryAfter",
]


def _find(path: str) -> Any:
    found: Any = csjd
    for name in path.split("."):
        found = getattr(found, name)
    return found


@pytest.mark.parametrize("path", SIGNATURES)
def test_promised_callable_takes_what_was_promised(path: str) -> None:
    parameters = inspect.signature(_find(path)).parameters
    by_name = False
    for name, default in SIGNATURES[path].items():
        if name == "*":
            by_name = True
            continue
        assert parameters[name].default == default
        if by_name:
            assert parameters[name].kind is inspect.Parameter.KEYWORD_ONLY
    given = {name for name in parameters if name != "self"}
    required = {name for name in given if parameters[name].default is EMPTY}
    assert required == {name for name, value in SIGNATURES[path].items() if value is EMPTY}


@pytest.mark.parametrize("path", [path for path in SIGNATURES if path != "open_dispatcher"])
def test_what_may_wait_is_async_and_nothing_else(path: str) -> None:
    assert inspect.iscoroutinefunction(_find(path)) is (path in AWAITED)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_promised_attributes_are_there(name: str) -> None:
    cls = getattr(csjd, name)
    fields = set(attrs.fields_dict(cls)) if attrs.has(cls) else set()
    assert set(ATTRIBUTES[name].split()) <= fields | set(dir(cls))


@pytest.mark.parametrize("name", ERRORS)
def test_promised_error_is_there(name: str) -> None:
    assert issubclass(getattr(csjd, name), csjd.CsjdError)


@pytest.mark.parametrize("name", [each for each in EXPORTED if each not in ALIASES])
def test_every_exported_name_is_documented(name: str) -> None:
    value = EXPORTED[name]
    if isinstance(value, dict) or not callable(value):
        return  # a table; its module explains it
    assert value.__doc__, name
    if not inspect.isclass(value):
        return
    assert not value.__doc__.startswith("Method generated by attrs"), name
    for member, each in vars(value).items():
        if member.startswith("_") or not (inspect.isfunction(each) or isinstance(each, property)):
            continue
        assert each.__doc__, f"{name}.{member}"


@pytest.mark.parametrize(
    "name",
    [n for n, v in EXPORTED.items() if inspect.isclass(v) and issubclass(v, enum.Enum)],
)
def test_states_are_named_uniquely(name: str) -> None:
    values = [member.value for member in EXPORTED[name]]
    assert len(values) == len(set(values))


def test_nothing_is_exported_by_accident() -> None:
    for name, value in EXPORTED.items():
        if not (inspect.isclass(value) or inspect.isfunction(value)):
            continue  # a type alias or a table
        home = getattr(value, "__module__", "csjd")
        assert home.startswith("csjd"), f"{name} is from {home}"
