"""What a `JobStore` must tell after a death, as tests."""

from collections.abc import Sequence
from typing import Any

from csjd._model.storing import (
    DeadLettered,
    DeathReason,
    Ended,
    Interrupted,
    Operation,
    Placed,
    Postponed,
    Requeued,
    Started,
)
from csjd.testing.stores.checking import check, check_recovery
from csjd.testing.stores.histories import accepted
from csjd.testing.stores.model import StoreModel
from csjd.testing.stores.suite import JobStoreSuite


class JobStoreCrashSuite(JobStoreSuite):
    """
    `JobStoreSuite`, and what holds after an owner's death: for a store that can be let go.

    It lets an owner die between two commits. Deaths in the midst of one, and those of the
    machine, are for `csjd.testing.machine_store`.
    """

    def abandon(self, store: Any) -> None:
        """
        Let the owner of *store* die: nothing more is written, and its lock is free.

        Args:
            store: What `open_store` returned, open; nothing of it is called after this.
        """
        raise NotImplementedError

    def _live_through(self, wrong: str, *lives: tuple[Sequence[Operation], bool]) -> None:
        """
        Fail, saying what is *wrong*, unless one owner after another is told the right thing.

        Args:
            wrong: What the failure would mean.
            lives: What each owner commits, and whether it closes the store.
        """
        model = StoreModel()
        for number, (operations, clean) in enumerate([*lives, ((), True)], 1):
            store, recovery = self._reopened()
            check_recovery(recovery, model, f"{wrong}: told to owner {number}")
            if operations:
                store.commit(operations)
                model.apply(operations)
            if clean:
                store.close()
            else:
                self.abandon(store)
            model.opened(clean=clean)

    def test_unclean_end_is_told(self) -> None:
        """Once: whoever opens the store after a death and closes it has set it right."""
        store, _ = self._reopened()
        self.abandon(store)
        assert not self._told().clean, "`Recovery.clean` although the last owner did not close"
        assert self._told().clean, "`Recovery.clean` is false after a clean close after a death"

    def test_unsynced_commit_outlives_the_process(self) -> None:
        """Nor does a death free an order; only the loss of power may cost a commit its end."""
        store, _ = self._reopened()
        store.commit([accepted(1)])
        store.commit([accepted(2)], sync=False)
        self.abandon(store)
        recovery = self._told()
        orders = [job.order for job in recovery.live]
        check(orders, [1, 2], "a commit did not survive the death of its process")
        check(recovery.next_order, 3, "an order is given again after a death")

    def test_crash_is_counted_of_what_was_running(self) -> None:
        """Of what was started, and since then neither stopped, put off nor ended."""
        self._live_through(
            "crashes are not those of the jobs that were running",
            (
                [
                    *(accepted(order) for order in range(1, 7)),
                    *(Started(order) for order in range(1, 6)),
                    Interrupted(2),
                    Postponed(3, 1, 4e9),
                    DeadLettered(4, 1, DeathReason.FAILED, "ValueError: no", 1e9),
                    Ended(5),
                ],
                False,
            ),
        )

    def test_counted_crashes_stay(self) -> None:
        """Until a dead letter is requeued: through clean ends, new places, and death."""
        self._live_through(
            "crashes were not added up",
            ([accepted(1), accepted(2), Started(1)], False),
            ([], False),  # a death while nothing ran
            ([Started(1), Started(2)], True),
            ([Started(1), Postponed(1, 1, 4e9)], False),
            ([Placed(1, 3), Started(3)], False),
            ([DeadLettered(3, 1, DeathReason.CRASHED, "no", 1e9), Started(2)], False),
            ([Requeued(3, 4)], False),
            ([Started(4)], False),
        )

    def test_store_closed_as_found_is_not_clean(self) -> None:
        """What killed its process may not have been told to anybody yet."""
        store, _ = self._reopened()
        store.commit([accepted(1), Started(1)])
        self.abandon(store)
        store, _ = self._reopened()
        close_as_found = getattr(store, "close_as_found", None)
        if close_as_found is None:  # a store need not have it
            self.abandon(store)
            return
        close_as_found()
        recovery = self._told()
        assert not recovery.clean, "`close_as_found` has made a store clean that was not"
        crashes = [job.crashes for job in recovery.live]
        check(crashes, [1], "`close_as_found` has changed how often a job has crashed")
