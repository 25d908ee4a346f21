"""What a user's type checker must and must not accept. Checked, never run."""

from typing import Any, assert_type

import trio

import csjd

registry = csjd.Registry()


@registry.handler("email", timeout=5, retry=csjd.Retry(max_attempts=5))
async def send_email(job: csjd.Job) -> str:  # noqa: ASYNC124
    return job.id


@registry.handler("report", on_failure="halt", retry_on_timeout=False)
def make_report(job: csjd.Job, attempt: csjd.Attempt) -> int:
    attempt.progress(0.5)
    assert_type(attempt.extend(3), bool)
    assert_type(attempt.time_left(), float)
    return attempt.number


async def decorators_keep_the_type_of_their_function(job: csjd.Job) -> None:
    assert_type(await send_email(job), str)


def patient(attempt: int, error: BaseException, random: object) -> float | None:
    return None if attempt > 3 else 2.0


def hear(event: csjd.Event) -> None:
    match event:
        case csjd.JobEnded(job=job, outcome=outcome):
            assert_type(job, csjd.Job)
            assert_type(outcome, csjd.Outcome)
        case _:
            pass


async def use() -> None:
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, csjd.Config(workers=2, retry=patient), registry=registry, observers=[hear]
        ) as dispatcher,
    ):
        assert_type(dispatcher, csjd.Dispatcher)
        receipt = await dispatcher.submit(csjd.Job(type="email"), wait=True, delay=0.5)
        assert_type(receipt, csjd.Receipt)
        match await receipt.outcome():
            case csjd.Succeeded(result=result, late=late):
                assert_type(late, bool)
                del result
            case csjd.Failed(error=error) | csjd.TimedOut(error=error):
                assert_type(error, BaseException)
            case csjd.Cancelled(attempts=attempts):
                assert_type(attempts, int)
        assert_type(await receipt.result(), Any)
        report = await dispatcher.submit_batch([csjd.Job(type="email")])
        assert_type(report.receipts[0], csjd.Receipt | None)
        assert_type(await dispatcher.stop(grace=3), csjd.StopReport)
        assert_type(dispatcher.last_stop, csjd.StopReport | None)
        assert_type(dispatcher.state, csjd.DispatcherState)
        assert_type(dispatcher.cancel("a"), bool)
        assert_type(dispatcher.add_worker(), int)
        assert_type(dispatcher.metrics().run.p99, float)
        assert_type(dispatcher.worker_stats(), tuple[csjd.WorkerStats, ...])
        assert_type(dispatcher.session_info("s"), csjd.SessionInfo | None)
        assert_type(await dispatcher.dead_letters(), tuple[csjd.DeadLetter, ...])
        assert_type(await dispatcher.requeue("a"), csjd.Receipt)


async def misuse(dispatcher: csjd.Dispatcher, job: csjd.Job) -> None:
    csjd.Job("email")  # type: ignore[call-arg]  # fields are given by name
    csjd.Job(type="email", priority="high")  # type: ignore[arg-type]
    csjd.Config(workers="4")  # type: ignore[arg-type]
    job.priority = 3  # type: ignore[misc]  # frozen
    await dispatcher.submit(job, True)  # type: ignore[call-arg]  # options are given by name
    await dispatcher.submit("email")  # type: ignore[arg-type]
    registry.register("t", send_email, on_failure="explode")  # type: ignore[arg-type]
