"""Where csjd comes in: every file a job, every package a session, every attempt in a thread."""

from collections.abc import Iterable
from pathlib import Path

import attrs
import trio

import csjd
from examples.demo.index import Index, PackageIndex, merge
from examples.demo.library import package_of
from examples.demo.scan import scan_file


@attrs.frozen(kw_only=True)
class Run:
    """What a run made, and what it took."""

    index: Index
    metrics: csjd.MetricsSnapshot
    workers: tuple[csjd.WorkerStats, ...]
    dead_letters: tuple[csjd.DeadLetter, ...]
    seconds: float


async def build_index(
    root: Path,
    files: Iterable[str],
    *,
    config: csjd.Config,
    observers: Iterable[csjd.Observer] = (),
) -> Run:
    """Index the *files* under *root* with a dispatcher, and return when all jobs have ended."""
    jobs = [
        csjd.Job(type="index-file", id=path, session=package_of(path), payload=path)
        for path in files
    ]
    packages = {job.session: PackageIndex() for job in jobs if job.session is not None}
    began = trio.current_time()
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, config, registry=_handlers(root, packages), observers=observers
        ) as dispatcher,
    ):
        # With `wait`, the batch goes in as fast as room is made below `max_pending`.
        report = await dispatcher.submit_batch(jobs, wait=True)
        for receipt in report.receipts:
            if receipt is not None:
                await receipt.outcome()
        run = Run(
            index=merge(packages.items()),
            metrics=dispatcher.metrics(),
            workers=dispatcher.worker_stats(),
            dead_letters=await dispatcher.dead_letters(),
            seconds=trio.current_time() - began,
        )
    return run


def _handlers(root: Path, packages: dict[str, PackageIndex]) -> csjd.Registry:
    registry = csjd.Registry()

    # A plain function, so it runs in a thread and may block. Only what the disk does to
    # us is worth another attempt.
    @registry.handler("index-file", timeout=60, retry=csjd.Retry(retry_on=OSError))
    def index_file(job: csjd.Job) -> int:
        trio.from_thread.check_cancelled()
        try:
            scan = scan_file(root, job.payload)
        except SyntaxError as error:
            csjd.permanent(error)  # it will not parse the next time either
        assert job.session is not None
        # No lock: the jobs of a session never overlap. And no harm if the job runs twice,
        # which delivery at least once permits: a scan replaces itself.
        packages[job.session].add(scan)
        return scan.size

    return registry
