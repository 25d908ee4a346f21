"""
A periodic crawler: rounds that submit themselves again, pages fetched once a round.

Run it with `python -m examples.crawler`.

A page links to pages that link back. Every link found becomes a job whose id names the
round and the page, so that csjd refuses the second submit of the same page and the crawl
ends by itself. The round's last page schedules the next round.
"""

import hashlib
import re
from collections import Counter

import attrs
import trio

import csjd
from examples.tiny_http import Response, get, open_server

PAGES = 25
_LINK = re.compile(r'href="([^"]+)"')


@attrs.define(eq=False)
class Site:
    """A small site whose news page changes with every visit."""

    visits: Counter[str] = attrs.field(factory=Counter)

    def respond(self, path: str) -> Response:
        """Return a page with three links."""
        self.visits[path] += 1
        number = int(path.removeprefix("/page/"))
        links = {number * 2 % PAGES, (number * 2 + 1) % PAGES, (number + 7) % PAGES}
        anchors = "".join(f'<a href="/page/{link}">{link}</a>' for link in sorted(links))
        news = f"<p>edition {self.visits[path]}</p>" if number == 0 else ""
        return Response(200, f"<h1>{number}</h1>{news}{anchors}")


@attrs.define(eq=False)
class Crawler:
    """Knows what it saw of a site, and submits what it has not seen this round."""

    port: int
    rounds: int
    """How many to do."""
    interval: float
    """Seconds from one round's end to the next one's start."""
    dispatcher: csjd.Dispatcher
    finished: trio.Event = attrs.field(factory=trio.Event)
    digests: dict[str, str] = attrs.field(factory=dict)
    changed: list[set[str]] = attrs.field(factory=list)
    """Per round: the pages that were new or had changed."""
    _open: int = 0
    """Pages of this round that were submitted and not yet read."""

    async def begin_round(self, number: int, delay: float = 0) -> None:
        """Submit a round, which is a job like any other."""
        await self.dispatcher.submit(
            csjd.Job(type="round", id=f"round-{number}", payload=number), delay=delay
        )

    async def do_round(self, job: csjd.Job) -> None:
        """Handle a round: submit its first page."""
        self.changed.append(set())
        await self._visit("/page/0", job.payload)

    async def do_page(self, job: csjd.Job) -> None:
        """Handle a page: fetch it, note whether it changed, submit what it links to."""
        number, path = job.payload
        response = await get(self.port, path)
        digest = hashlib.sha256(response.body.encode()).hexdigest()
        if self.digests.get(path) != digest:
            self.digests[path] = digest
            self.changed[-1].add(path)
        for link in _LINK.findall(response.body):
            await self._visit(link, number)
        self._open -= 1
        if self._open > 0:
            return
        if number < self.rounds:
            await self.begin_round(number + 1, delay=self.interval)
        else:
            self.finished.set()

    async def _visit(self, path: str, number: int) -> None:
        job = csjd.Job(type="page", id=f"round-{number} {path}", payload=(number, path))
        try:
            await self.dispatcher.submit(job)
        except csjd.DuplicateJobError:
            return  # somebody linked to it before
        self._open += 1


async def main(rounds: int = 3, interval: float = 0.5) -> tuple[Crawler, csjd.MetricsSnapshot]:
    """Crawl *rounds* times; return the crawler and the metrics."""
    site = Site()
    # An id is refused while its job lives and for the duplicate window after, so the
    # window must be longer than a round.
    config = csjd.Config(workers=1, lanes=4, duplicate_window=60)
    async with (
        open_server(site.respond) as port,
        trio.open_nursery() as nursery,
        csjd.open_dispatcher(nursery, config) as dispatcher,
    ):
        crawler = Crawler(port, rounds, interval, dispatcher)
        dispatcher.register("round", crawler.do_round)
        dispatcher.register("page", crawler.do_page, timeout=5)
        await crawler.begin_round(1)
        await crawler.finished.wait()
        metrics = dispatcher.metrics()
    for number, changed in enumerate(crawler.changed, start=1):
        print(f"round {number}: {len(changed)} pages new or changed")
    print(f"{site.visits.total()} requests, {metrics.duplicates} links refused as duplicates")
    return crawler, metrics


if __name__ == "__main__":
    trio.run(main)
