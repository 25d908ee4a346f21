"""Numbers add up, whoever asks and whenever."""

from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st
from trio.testing import MockClock

import csjd
from tests.runtime.scene import ONCE, at, balanced, opened, submit, work


async def test_metrics_tell_where_every_job_is(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1, lanes=2) as dispatcher:
        dispatcher.pause(type="nothing")
        await submit(dispatcher, "sleep", 5, session="s")
        await submit(dispatcher, "sleep", 5, session="s")
        await submit(dispatcher, "sleep", 5)
        await submit(dispatcher, "sleep", 5)
        await submit(dispatcher, "nothing")
        await submit(dispatcher, "nothing", delay=9)
        await at(1)
        metrics = dispatcher.metrics()
        assert (metrics.running, metrics.ready, metrics.waiting, metrics.scheduled) == (2, 2, 1, 1)
        assert (metrics.accepted, metrics.live, metrics.pending) == (6, 6, 6)
        assert (metrics.workers, metrics.lanes, metrics.lanes_busy) == (1, 2, 2)
        assert (metrics.sessions, metrics.attempts) == (1, 2)
        assert metrics.state is csjd.DispatcherState.RUNNING
        assert balanced(metrics)
        dispatcher.resume(type="nothing")
        await at(50)
        metrics = dispatcher.metrics()
        assert (metrics.succeeded, metrics.live, metrics.attempts) == (6, 0, 6)
        assert (metrics.sessions, metrics.run.count, metrics.wait.count) == (0, 6, 6)


async def test_wait_and_run_times_are_counted(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1) as dispatcher:
        for _ in range(4):
            await submit(dispatcher, "sleep", 2)
        await submit(dispatcher, "sleep", 2, delay=50)  # waits from its due time only
        await at(60)
        metrics = dispatcher.metrics()
        assert (metrics.run.total, metrics.run.highest) == (10, 2)
        assert (metrics.wait.total, metrics.wait.highest) == (0 + 2 + 4 + 6 + 0, 6)
        assert 2 <= metrics.run.p50 <= 2 * 1.19
        assert 6 <= metrics.wait.p99 <= 6 * 1.19


async def test_worker_and_session_statistics(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1, lanes=2, retry=ONCE) as dispatcher:
        await submit(dispatcher, "sleep", 2, id="a", session="s")
        await submit(dispatcher, "fail", ValueError(), session="s")
        gone = await submit(dispatcher, "sleep", 9, session="s")
        await submit(dispatcher, "sleep", 9, session="s", delay=100)
        await at(1)
        info = dispatcher.session_info("s")
        assert info is not None
        assert (info.session, info.worker, info.pending, info.running) == ("s", 0, 4, "a")
        await at(3)
        gone.cancel()
        await at(4)
        info = dispatcher.session_info("s")
        assert info is not None
        assert (info.succeeded, info.failed, info.cancelled, info.pending) == (1, 1, 1, 1)
        assert info.running is None
        [stats] = dispatcher.worker_stats()
        assert (stats.worker, stats.sessions, stats.lanes, stats.lanes_busy) == (0, 1, 2, 0)
        assert (stats.attempts, stats.succeeded, stats.failed) == (3, 1, 1)
        assert stats.busy_seconds == 3
        assert dispatcher.session_info("unheard-of") is None


async def test_history_is_bounded_and_in_order(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=1, history=2, retry=ONCE) as dispatcher:
        await submit(dispatcher, "sleep", 1, id="a")
        await submit(dispatcher, "fail", ValueError(), id="b", session="s")
        await submit(dispatcher, "sleep", 1, id="c")
        await at(5)
        b, c = dispatcher.history()
        assert (b.job_id, b.type, b.session, b.state) == ("b", "fail", "s", csjd.JobState.FAILED)
        assert (c.job_id, c.state, c.attempts) == ("c", csjd.JobState.SUCCEEDED, 1)
        assert (c.duration, c.ended) == (1, 2)


async def test_numbers_outlive_workers(autojump_clock: MockClock) -> None:
    async with opened(work().registry, workers=4) as dispatcher:
        for _ in range(8):
            await submit(dispatcher, "sleep", 1)
        await at(0.5)
        await dispatcher.resize(1)
        await at(20)
        metrics = dispatcher.metrics()
        assert (metrics.attempts, metrics.run.count, metrics.run.total) == (8, 8, 8)
        assert metrics.wait.count == 8
        assert balanced(metrics)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["sleep", "fail", "stubborn", "session", "delay", "cancel", "pause", "resume", "stop"]
        ),
        st.integers(0, 5),
    ),
    max_size=30,
)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_books_add_up_at_every_moment(steps: list[tuple[str, int]]) -> None:
    async def main() -> None:
        config: dict[str, Any] = {
            "workers": 2,
            "job_timeout": 3,
            "detach_budget": 1,
            "duplicate_window": 0,
        }
        async with opened(work().registry, **config) as dispatcher:
            for step, (what, number) in enumerate(steps):
                name = str(step)
                match what:
                    case "sleep" | "stubborn":
                        await submit(dispatcher, what, number, id=name)
                    case "fail":
                        await submit(dispatcher, what, ValueError(), id=name)
                    case "session":
                        session = f"s{number % 2}"
                        await submit(dispatcher, "sleep", 1, id=name, session=session)
                    case "delay":
                        await submit(dispatcher, "sleep", 1, id=name, delay=number)
                    case "cancel":
                        dispatcher.cancel(str(step - number))
                    case "pause":
                        dispatcher.pause(session=f"s{number % 2}")
                    case "resume":
                        dispatcher.resume(session=f"s{number % 2}")
                    case "stop":
                        await dispatcher.stop(grace=number)
                        assert balanced(dispatcher.metrics())
                        await dispatcher.start()
                assert balanced(dispatcher.metrics())
                await trio.sleep(number / 2)
                assert balanced(dispatcher.metrics())
            for session in ("s0", "s1"):
                dispatcher.resume(session=session)
            while dispatcher.metrics().live:
                await trio.sleep(1)
                assert balanced(dispatcher.metrics())

    trio.run(main, clock=MockClock(autojump_threshold=0))


async def test_idle_dispatcher_has_no_timer(mock_clock: MockClock) -> None:
    """No task of an idle dispatcher runs, however much time passes."""
    async with opened(work().registry, workers=4, lanes=4) as dispatcher:
        await (await submit(dispatcher, "nothing", session="s")).outcome()
        await trio.testing.wait_all_tasks_blocked()

        class Watch(trio.abc.Instrument):
            steps = 0

            def before_task_step(self, task: trio.lowlevel.Task) -> None:
                self.steps += "csjd" in task.name

        watch = Watch()
        trio.lowlevel.add_instrument(watch)
        for _ in range(50):
            mock_clock.jump(1000)
            await trio.testing.wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(watch)
        assert watch.steps == 0
        assert dispatcher.metrics().succeeded == 1


@pytest.mark.parametrize("share", [2, -1])
async def test_impossible_percentile_is_refused(share: float) -> None:
    async with opened() as dispatcher:
        with pytest.raises(ValueError, match="share"):
            dispatcher.metrics().wait.percentile(share)
