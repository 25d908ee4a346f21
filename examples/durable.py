"""
Jobs that survive a crash: a dispatcher with a store, and a program that picks up its jobs.

Run it with `python -m examples.durable`, press Ctrl-C or kill it half-way, and run it again.
"""

import sys
import tempfile
from pathlib import Path

import trio

import csjd

registry = csjd.Registry()


@registry.handler("letter")
async def write_letter(job: csjd.Job) -> None:
    """Pretend to write; safe to run twice, which a crash may make happen."""
    await trio.sleep(0.2)
    print(f"wrote to {job.payload}", flush=True)


async def main(path: Path, people: tuple[str, ...] = ("Ada", "Grace", "Barbara", "Edith")) -> int:
    """Write to everybody; return how many letters an earlier run had left to write."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(
            nursery, csjd.Config(workers=1), registry=registry, store=csjd.FileJobStore(path)
        ) as dispatcher,
    ):
        left = dispatcher.metrics().recovered
        if left:
            print(f"{left} letters of the last run are still to be written", flush=True)
        else:
            # When this returns the jobs are on the disk, and nothing will lose them.
            await dispatcher.submit_batch(
                csjd.Job(type="letter", session="desk", payload=name) for name in people
            )
    return left  # leaving the block worked off what was there


if __name__ == "__main__":
    where = Path(sys.argv[1] if len(sys.argv) > 1 else tempfile.gettempdir())
    trio.run(main, where / "csjd-letters")
