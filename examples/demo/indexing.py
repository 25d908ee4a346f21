"""Where csjd comes in: every file a job, every package a session, every attempt in a thread."""

import math
import shutil
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

import attrs
import trio

import csjd
from examples.demo.index import Index, PackageIndex, merge
from examples.demo.library import package_of
from examples.demo.results import Results
from examples.demo.scan import scan_file

# No program keeps anything of its own under these names.
_JOBS, _RESULTS = "csjd-demo-jobs", "csjd-demo-results.jsonl"


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
    keep: Path,
    observers: Iterable[csjd.Observer] = (),
    say_resumed: Callable[[int, int], object] = lambda found, left: None,
) -> Run:
    """
    Index the *files* under *root* with a dispatcher, and return when all jobs have ended.

    Args:
        root: The library.
        files: Paths in it.
        config: The dispatcher's.
        keep: A directory, made before, for what must outlive a crash: jobs and results.
        observers: The dispatcher's.
        say_resumed: Told what an earlier run that was killed had found, and left to do.
    """
    packages: dict[str, PackageIndex] = {}
    began = trio.current_time()
    with closing(Results(keep / _RESULTS)) as results:
        for scan in results.scans():
            packages.setdefault(package_of(scan.path), PackageIndex()).add(scan)
        found = {path for package in packages.values() for path in package.scans}
        async with (
            trio.open_nursery() as nursery,
            csjd.open_dispatcher(
                nursery,
                config,
                registry=_handlers(root, packages, results),
                store=csjd.FileJobStore(keep / _JOBS),
                observers=observers,
            ) as dispatcher,
        ):
            dead = {letter.job.id for letter in await dispatcher.dead_letters()}
            if found or dead or dispatcher.metrics().recovered:
                say_resumed(len(found | dead), dispatcher.metrics().recovered)
            # With `wait`, the batch goes in as fast as room is made below `max_pending`.
            # Jobs that came out of the store are duplicates, and refused.
            await dispatcher.submit_batch(
                (
                    csjd.Job(type="index-file", id=path, session=package_of(path), payload=path)
                    for path in files
                    if path not in found and path not in dead
                ),
                wait=True,
            )
            await dispatcher.stop(grace=math.inf)  # works off all there is
            run = Run(
                index=merge(packages.items()),
                metrics=dispatcher.metrics(),
                workers=dispatcher.worker_stats(),
                dead_letters=await dispatcher.dead_letters(),
                seconds=trio.current_time() - began,
            )
    return run


def forget(keep: Path) -> None:
    """Remove what `build_index` has kept in the directory *keep*, and nothing else."""
    shutil.rmtree(keep / _JOBS)
    (keep / _RESULTS).unlink()


def _handlers(root: Path, packages: dict[str, PackageIndex], results: Results) -> csjd.Registry:
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
        packages.setdefault(job.session, PackageIndex()).add(scan)
        results.add(scan)  # on the disk before the job ends: what has ended was found
        return scan.size

    return registry
