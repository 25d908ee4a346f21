"""Small scenes for defects that random runs meet too seldom: each fails by an assertion."""

import math

import trio

import csjd
from csjd import Config, Job, Registry, Retry
from csjd.testing import run_virtual


def _registry() -> Registry:
    registry = Registry()

    @registry.handler("nothing")
    async def nothing(job: Job) -> None:
        await trio.lowlevel.checkpoint()

    @registry.handler("exit", retry=Retry(max_attempts=1))
    async def leave(job: Job) -> None:
        await trio.lowlevel.checkpoint()
        raise SystemExit

    @registry.handler("foreign", retry=Retry(max_attempts=2, min_delay=0))
    async def foreign(job: Job, attempt: csjd.Attempt) -> None:
        await trio.lowlevel.checkpoint()
        if attempt.number == 1:
            raise TimeoutError("not ours")

    @registry.handler("hang")
    async def hang(job: Job) -> None:
        await trio.sleep_forever()

    return registry


async def limit_of_sessions() -> None:
    """A second session is refused where one is allowed."""
    async with trio.open_nursery() as nursery:
        config = Config(workers=1, max_sessions=1, job_timeout=math.inf, stop_grace=0)
        async with csjd.open_dispatcher(nursery, config, registry=_registry()) as dispatcher:
            await dispatcher.submit(Job(type="hang", session="a"))
            report = await dispatcher.submit_batch([Job(type="nothing", session="b")])
            assert report.rejected == 1, report


async def stop_leaves_the_future() -> None:
    """A stop with all the grace in the world does not wait for a delayed job."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry()) as dispatcher,
    ):
        await dispatcher.submit(Job(type="nothing", id="later"), delay=50)
        report = await dispatcher.stop(grace=math.inf)
        assert report.duration < 50, report
        assert [job.id for job in report.unfinished] == ["later"]


async def exit_ends_its_job_alone() -> None:
    """The lane that met a SystemExit does the next job."""
    async with trio.open_nursery() as nursery:
        config = Config(workers=1)
        async with csjd.open_dispatcher(nursery, config, registry=_registry()) as dispatcher:
            first = await dispatcher.submit(Job(type="exit"))
            second = await dispatcher.submit(Job(type="nothing"))
            assert isinstance(await first.outcome(), csjd.Failed)
            assert isinstance(await second.outcome(), csjd.Succeeded)


async def foreign_timeout_is_retried() -> None:
    """A TimeoutError that a handler raises is a failure like any other."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, registry=_registry()) as dispatcher,
    ):
        receipt = await dispatcher.submit(Job(type="foreign"))
        assert isinstance(await receipt.outcome(), csjd.Succeeded)


async def sessions_are_spread() -> None:
    """No worker gets many more sessions than another, however the ring falls."""
    async with trio.open_nursery() as nursery:
        config = Config(workers=4, virtual_nodes=3)
        async with csjd.open_dispatcher(nursery, config, registry=_registry()) as dispatcher:
            jobs = [Job(type="nothing", session=f"session-{number}") for number in range(200)]
            await dispatcher.submit_batch(jobs)
            spread = dispatcher.session_distribution()
            assert spread.highest <= math.ceil(config.load_factor * spread.mean), spread


SCENES = [
    limit_of_sessions,
    stop_leaves_the_future,
    exit_ends_its_job_alone,
    foreign_timeout_is_retried,
    sessions_are_spread,
]


def play(scene: int) -> None:
    """Play one of `SCENES`; a scene that would never end fails after a virtual hour."""

    async def bounded() -> None:
        with trio.fail_after(3600):
            await SCENES[scene]()

    run_virtual(bounded)
