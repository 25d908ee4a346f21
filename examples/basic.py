"""
Basic use: a handler, a dispatcher, a job, its result.

Run it with `python -m examples.basic`.
"""

import trio

import csjd

registry = csjd.Registry()


@registry.handler("greet")
async def greet(job: csjd.Job) -> str:
    """Do the work of every job of type `greet`."""
    await trio.sleep(0.01)
    return f"Hello, {job.payload}!"


async def main() -> list[str]:
    """Greet three people in the background and return what was said."""
    async with (
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, csjd.Config(workers=4), registry=registry) as dispatcher,
    ):
        jobs = [csjd.Job(type="greet", payload=name) for name in ("Ada", "Grace", "Barbara")]
        receipts = [await dispatcher.submit(job) for job in jobs]
        greetings = [await receipt.result() for receipt in receipts]
    return greetings


if __name__ == "__main__":
    for line in trio.run(main):
        print(line)
