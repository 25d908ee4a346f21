"""How far the run has come, as an observer sees it."""

import attrs

import csjd


@attrs.define(eq=False)
class Progress:
    """Counts jobs as they end; hand `note` to a dispatcher as an observer."""

    total: int
    done: int = 0
    """Jobs that have ended, however they did."""
    failed: int = 0
    """Those that are dead letters."""
    latest: str = ""
    """The file whose job ended last."""

    def note(self, event: csjd.Event) -> None:
        """Hear one event. Observers must not block: this counts, others show."""
        match event:
            case csjd.JobEnded(job=job, outcome=outcome):
                self.done += 1
                self.failed += not isinstance(outcome, csjd.Succeeded)
                self.latest = job.id
