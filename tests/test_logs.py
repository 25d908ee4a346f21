"""What a dispatcher's logs say, and that no event or value can break them."""

import json
import logging
import math
from random import Random

import pytest
import trio
from trio.testing import MockClock

import csjd
from csjd.logs import JsonFormatter, LogObserver


class Records(logging.Handler):
    """Keeps what was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.seen.append(record)

    def facts(self, event: str) -> list[dict[str, object]]:
        """Return the records of one kind of event as the formatter writes them, read again."""
        lines = [json.loads(JsonFormatter().format(record)) for record in self.seen]
        return [line for line in lines if line.get("event") == event]


@pytest.fixture
def logger() -> logging.Logger:
    return logging.Logger("test", logging.DEBUG)


@pytest.fixture
def records(logger: logging.Logger) -> Records:
    records = Records()
    logger.addHandler(records)
    return records


def render(**facts: object) -> dict[str, object]:
    """Return a record with *facts* as the formatter writes it, read again."""
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO", **facts})
    text = JsonFormatter().format(record)
    assert text.isascii()
    assert "\n" not in text
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert isinstance(read, dict)
    return read


async def test_each_record_of_a_job_names_it(
    logger: logging.Logger, records: Records, autojump_clock: MockClock
) -> None:
    registry = csjd.Registry()
    tries = iter([1, 2])

    @registry.handler("greet", retry=csjd.Retry(min_delay=2, jitter=0))
    async def greet(job: csjd.Job) -> None:
        await trio.sleep(3)
        if next(tries) == 1:
            raise ValueError("not yet")

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, registry=registry, observers=[LogObserver(logger)]
        ) as dispatcher,
    ):
        job = csjd.Job(type="greet", id="g1", payload="grüße", session="s")
        await (await dispatcher.submit(job)).result()

    about = {"job_id": "g1", "job_type": "greet", "payload_size": 7, "session": "s"}
    (accepted,) = records.facts("JobAccepted")
    assert accepted.items() >= (about | {"component": "admission", "level": "DEBUG"}).items()
    first, second = records.facts("AttemptStarted")
    assert first.items() >= (about | {"component": "worker", "attempt": 1}).items()
    assert second.items() >= (about | {"component": "worker", "attempt": 2}).items()
    (retried,) = records.facts("JobRetried")
    expected = {"attempt": 1, "delay": 2.0, "error": "ValueError: not yet", "level": "WARNING"}
    assert retried.items() >= (about | expected | {"component": "scheduler"}).items()
    (ended,) = records.facts("JobEnded")
    expected = {"attempt": 2, "outcome": "succeeded", "duration": 3.0, "level": "INFO"}
    assert ended.items() >= (about | expected | {"component": "scheduler"}).items()
    assert ended["message"] == "greet job g1: succeeded after 2 attempts"
    (stopped,) = records.facts("DispatcherStopped")
    assert stopped.items() >= {"component": "dispatcher", "unfinished": 0}.items()


async def test_a_failed_job_is_an_error_with_its_traceback(
    logger: logging.Logger, records: Records, autojump_clock: MockClock
) -> None:
    registry = csjd.Registry()

    @registry.handler("boom")
    async def boom(job: csjd.Job) -> None:
        await trio.lowlevel.checkpoint()
        csjd.permanent(ValueError("no such thing"))

    @registry.handler("slow", timeout=5, retry_on_timeout=False)
    async def slow(job: csjd.Job) -> None:
        await trio.sleep_forever()

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, registry=registry, observers=[LogObserver(logger)]
        ) as dispatcher,
    ):
        await dispatcher.submit(csjd.Job(type="boom"))
        await dispatcher.submit(csjd.Job(type="slow"))

    failed, timed_out = records.facts("JobEnded")
    assert failed["level"] == timed_out["level"] == "ERROR"
    assert failed["outcome"] == "failed"
    assert "ValueError: no such thing" in str(failed["traceback"])
    assert timed_out["outcome"] == "timed_out"
    assert timed_out["duration"] == 5.0


async def test_a_refusal_says_why(
    logger: logging.Logger, records: Records, autojump_clock: MockClock
) -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, observers=[LogObserver(logger)]) as dispatcher,
    ):
        with pytest.raises(csjd.HandlerNotFoundError):
            await dispatcher.submit(csjd.Job(type="nobody", payload=b"1234"))
    (refused,) = records.facts("JobRefused")
    assert refused["component"] == "admission"
    assert refused["payload_size"] == 4
    assert "HandlerNotFoundError" in str(refused["error"])


async def test_a_stuck_handler_is_logged_with_where_it_is(
    logger: logging.Logger, records: Records, autojump_clock: MockClock
) -> None:
    registry = csjd.Registry()

    @registry.handler("deaf", timeout=1)
    async def deaf(job: csjd.Job) -> None:
        with trio.CancelScope(shield=True):
            await trio.sleep(10)

    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, registry=registry, observers=[LogObserver(logger)]
        ) as dispatcher,
    ):
        await dispatcher.submit(csjd.Job(type="deaf"))
    (cancelled,) = records.facts("AttemptCancelled")
    assert cancelled["reason"] == "timed out"
    (stuck,) = records.facts("HandlerStuck")
    assert stuck["level"] == "ERROR"
    assert stuck["duration"] == 2.0  # its timeout and the detach grace
    assert any("in deaf" in line for line in stuck["stack"])  # type: ignore[attr-defined]


def test_nothing_is_gathered_below_the_level() -> None:
    class Untouchable(str):
        def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
            raise AssertionError("looked at")

    event = csjd.JobAccepted(at=0.0, job=csjd.Job(type="t", payload=Untouchable("x")))
    LogObserver(logging.Logger("test", logging.INFO))(event)
    with pytest.raises(AssertionError, match="looked at"):
        LogObserver(logging.Logger("test", logging.DEBUG))(event)


def test_an_event_unknown_to_the_observer_is_logged_by_its_name(
    logger: logging.Logger, records: Records
) -> None:
    class MoonRose(csjd.JobEvent):
        pass

    LogObserver(logger)(MoonRose(at=1.0, job=csjd.Job(type="t", id="j")))
    (line,) = records.facts("MoonRose")
    assert line["message"] == "t job j: moon rose"
    assert line["component"] == "scheduler"


def test_an_error_that_cannot_be_shown_does_not_break_the_log(
    logger: logging.Logger, records: Records
) -> None:
    class SilentError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    job = csjd.Job(type="t", id="j")
    LogObserver(logger)(
        csjd.JobRetried(at=0.0, job=job, attempt=1, error=SilentError(), delay=1.0, timed_out=False)
    )
    (line,) = records.facts("JobRetried")
    assert line["error"] == "SilentError"


@pytest.mark.parametrize(
    ("payload", "size"),
    [(None, 0), (b"abc", 3), (bytearray(5), 5), ("ä", 2), ("\ud800", 3), ({"a": 1}, None)],
)
def test_payload_sizes_are_bytes(
    logger: logging.Logger, records: Records, payload: object, size: int | None
) -> None:
    LogObserver(logger)(csjd.JobAccepted(at=0.0, job=csjd.Job(type="t", payload=payload)))
    (line,) = records.facts("JobAccepted")
    assert line["payload_size"] == size


def test_the_formatter_puts_the_time_in_utc() -> None:
    line = render(created=0.5)
    assert list(line) == ["time", "level", "logger", "message"]
    assert line["time"] == "1970-01-01T00:00:00.500000+00:00"


def test_the_formatter_writes_what_json_cannot_say_as_its_repr() -> None:
    circle: list[object] = []
    circle.append(circle)

    class Mute:
        def __repr__(self) -> str:
            raise RuntimeError("no words")

    line = render(a=math.inf, b=math.nan, c={1, 2}, d=circle, e=Mute(), f="line\nbreak\ud800")
    assert line["a"] == "inf"
    assert line["b"] == "nan"
    assert line["c"] == "{1, 2}"
    assert line["d"] == "[[...]]"
    assert line["e"] == "<Mute>"
    assert line["f"] == "line\nbreak\ud800"


@pytest.mark.parametrize("seed", range(20))
def test_whatever_a_record_carries_its_line_is_json(seed: int) -> None:
    random = Random(seed)
    choices: list[object] = [None, 1, math.inf, "x\u2028", b"\xff", object(), {"k": [1]}, {2: 3}]
    facts = {f"fact_{n}": random.choice(choices) for n in range(10)}
    assert render(**facts).keys() >= facts.keys(), f"seed {seed}"
