"""Which handler does the work of which type."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal

import attrs

from csjd._model.handler import Handler, HandlerSpec, HandlerT, describe
from csjd._model.retry import RetryPolicy


@attrs.define(eq=False)
class Registry(Mapping[str, HandlerSpec]):
    """
    Handlers by the type of job they do; a read-only mapping of type to `HandlerSpec`.

    A dispatcher reads its registry when it is opened; what is registered later goes
    through `Dispatcher.register`.
    """

    _specs: dict[str, HandlerSpec] = attrs.field(factory=dict, init=False)

    def register(
        self,
        type: str,
        handler: Handler,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        retry_on_timeout: bool = True,
        on_failure: Literal["continue", "halt"] = "continue",
        payload: Any = None,
    ) -> None:
        """
        Let *handler* do the jobs of *type*.

        Args:
            type: 1 to 512 bytes without control characters.
            handler: `h(job)` or `h(job, attempt)`. An `async def` runs in a lane; a plain
                `def` runs in a thread and must be safe to run there.
            timeout: Seconds an attempt may run, `math.inf` for no end; default:
                `Config.job_timeout`.
            retry: Default: `Config.retry`.
            retry_on_timeout: False makes a timeout final.
            on_failure: What the job's session does when the job has failed for good: go
                on, or halt until `resume(session=...)`.
            payload: The class payloads must be of (attrs, dataclass, msgspec.Struct,
                TypedDict or a plain type), checked at submit.

        Raises:
            ValueError: If a setting is unusable or *type* already has a handler.
            InvalidJobError: If *type* cannot be a type.
        """
        spec = describe(
            type,
            handler,
            timeout=timeout,
            retry=retry,
            retry_on_timeout=retry_on_timeout,
            on_failure=on_failure,
            payload=payload,
        )
        if type in self._specs:
            raise ValueError(f"type {type!r} already has a handler: register each type once")
        self._specs[type] = spec

    def handler(
        self,
        type: str,
        *,
        timeout: float | None = None,
        retry: RetryPolicy | None = None,
        retry_on_timeout: bool = True,
        on_failure: Literal["continue", "halt"] = "continue",
        payload: Any = None,
    ) -> Callable[[HandlerT], HandlerT]:
        """Return a decorator that registers its function; arguments as for `register`."""

        def decorate(function: HandlerT) -> HandlerT:
            self.register(
                type,
                function,
                timeout=timeout,
                retry=retry,
                retry_on_timeout=retry_on_timeout,
                on_failure=on_failure,
                payload=payload,
            )
            return function

        return decorate

    def __getitem__(self, type: str) -> HandlerSpec:
        return self._specs[type]

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)
