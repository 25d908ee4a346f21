"""What is known about the handler of a type: the function and how its jobs are to be run."""

import enum
import inspect
import math
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeAlias, TypeVar

import attrs

from csjd._model.checks import check_name, is_number
from csjd._model.retry import RetryPolicy

Handler: TypeAlias = Callable[..., Awaitable[Any]] | Callable[..., Any]
"""`h(job)` or `h(job, attempt)`; async, or plain, which then runs in a thread."""

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


class OnFailure(enum.Enum):
    """What a session does when its head job has failed for good."""

    CONTINUE = "continue"
    HALT = "halt"


@attrs.frozen(kw_only=True)
class HandlerSpec:
    """
    A handler and the settings its type was registered with.

    Raises:
        ValueError: Naming the setting and its range.
        InvalidJobError: If `type` cannot be a type.
    """

    type: str
    function: Handler
    threaded: bool
    """Whether `function` is plain and runs in a thread."""
    takes_attempt: bool
    """Whether `function` wants the `Attempt` as its second argument."""
    timeout: float | None = None
    retry: RetryPolicy | None = None
    retry_on_timeout: bool = True
    on_failure: OnFailure = OnFailure.CONTINUE
    payload: Any = None
    """The class payloads must be of; None: anything."""

    def __attrs_post_init__(self) -> None:
        check_name("type", self.type)
        if self.timeout is not None and not (
            is_number(self.timeout) and 0 < self.timeout <= math.inf
        ):
            raise ValueError(f"timeout must be seconds > 0, or math.inf, got {self.timeout!r}")
        if self.retry is not None and not callable(self.retry):
            raise ValueError(f"retry must be a Retry or a callable, got {self.retry!r}")


def describe(
    type: str,
    function: Handler,
    *,
    timeout: float | None = None,
    retry: RetryPolicy | None = None,
    retry_on_timeout: bool = True,
    on_failure: Literal["continue", "halt"] = "continue",
    payload: Any = None,
) -> HandlerSpec:
    """
    Look at *function* once, so that no attempt has to.

    Raises:
        ValueError: If a setting or the function's signature is unusable.
    """
    if not callable(function):
        raise ValueError(f"the handler of {type!r} must be callable, got {function!r}")
    if on_failure not in ("continue", "halt"):
        raise ValueError(f"on_failure must be 'continue' or 'halt', got {on_failure!r}")
    return HandlerSpec(
        type=type,
        function=function,
        threaded=not _is_async(function),
        takes_attempt=_count_arguments(type, function) == 2,
        timeout=timeout,
        retry=retry,
        retry_on_timeout=retry_on_timeout,
        on_failure=OnFailure(on_failure),
        payload=payload,
    )


def _is_async(function: Handler) -> bool:
    # Callable objects and partials wrap the function that says it.
    inner: Any = inspect.unwrap(function)
    while hasattr(inner, "func"):
        inner = inner.func
    if inspect.isgeneratorfunction(inner) or inspect.isasyncgenfunction(inner):
        raise ValueError(f"a handler must not be a generator, got {function!r}")
    return inspect.iscoroutinefunction(inner) or inspect.iscoroutinefunction(
        getattr(inner, "__call__", None)  # noqa: B004  its kind is asked, not whether it is there
    )


def _count_arguments(type: str, function: Handler) -> int:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-ins may not have one
        return 1
    for arguments in ((None,), (None, None)):
        try:
            signature.bind(*arguments)
        except TypeError:
            continue
        return len(arguments)
    raise ValueError(
        f"the handler of {type!r} must be callable as h(job) or h(job, attempt), "
        f"its signature is {signature}"
    )
