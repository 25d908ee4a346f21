"""
Retries against a server that has bad days.

Run it with `python -m examples.flaky_server`.

The server answers 503 now and then, or 429 with a Retry-After, or hangs up; one page is
gone for good. The handler says which is which by what it raises, and csjd does the rest.
"""

from collections import Counter
from random import Random

import attrs
import trio

import csjd
from examples.tiny_http import Response, get, open_server

PAGES = 40


@attrs.define(eq=False)
class FlakyServer:
    """Answers half of the requests properly."""

    random: Random
    requests: Counter[str] = attrs.field(factory=Counter)
    """By path."""

    def respond(self, path: str) -> Response | None:
        """Answer a GET, or hang up."""
        self.requests[path] += 1
        if path == "/gone":
            return Response(404)
        match self.random.randrange(6):
            case 0:
                return Response(503)
            case 1:
                return Response(429, headers={"Retry-After": "0.02"})
            case 2:
                return None
            case _:
                return Response(200, f"This is {path}.")


class ServerError(Exception):
    """The server failed; it may do better next time."""


async def main(seed: int = 7) -> csjd.MetricsSnapshot:
    """Fetch every page, however often it takes; return the metrics."""
    server = FlakyServer(Random(seed))
    registry = csjd.Registry()
    patient = csjd.Retry(max_attempts=10, min_delay=0.005, max_delay=0.05)

    async with trio.open_nursery() as nursery, open_server(server.respond) as port:

        @registry.handler("fetch", retry=patient, timeout=5)
        async def fetch(job: csjd.Job) -> str:
            response = await get(port, job.payload)
            match response.status:
                case 200:
                    return response.body
                case 404:
                    raise csjd.PermanentError(f"there is no {job.payload}")
                case 429:
                    raise csjd.RetryAfter(float(response.headers["retry-after"]))
                case status:
                    raise ServerError(status)

        config = csjd.Config(workers=1, lanes=8)  # no sessions here, so lanes are all we need
        async with csjd.open_dispatcher(nursery, config, registry=registry) as dispatcher:
            paths = [f"/page/{number}" for number in range(PAGES)] + ["/gone"]
            report = await dispatcher.submit_batch(
                csjd.Job(type="fetch", payload=path) for path in paths
            )
            for path, receipt in zip(paths, report.receipts, strict=True):
                assert receipt is not None
                match await receipt.outcome():
                    case csjd.Succeeded(attempts=attempts) if attempts > 3:
                        print(f"{path}: fetched at attempt {attempts}")
                    case csjd.Failed(attempts=attempts, error=error):
                        print(f"{path}: given up at attempt {attempts}: {error}")
            metrics = dispatcher.metrics()

    print(
        f"{metrics.succeeded} pages fetched with {server.requests.total()} requests, "
        f"{metrics.retries} retries, {metrics.failed} dead letter"
    )
    return metrics


if __name__ == "__main__":
    trio.run(main)
