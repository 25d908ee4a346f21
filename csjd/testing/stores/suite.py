"""What every `JobStore` must do, as tests."""

import random

from csjd._model.errors import JobStoreClosedError, JobStoreLockedError
from csjd._model.storing import Ended, JobStore, Recovery
from csjd.testing.stores.histories import CREATED, accepted, random_batch
from csjd.testing.stores.model import StoreModel, model_of, summarize


class JobStoreSuite:
    """
    What every `JobStore` must do; subclass it in a test module, for pytest or by hand.

    Each test begins with an empty store; `open_store` is called again to reopen it.
    """

    def open_store(self) -> JobStore:
        """Return an instance, not recovered yet, on what this test's others left."""
        raise NotImplementedError

    def _reopened(self) -> tuple[JobStore, Recovery]:
        store = self.open_store()
        return store, store.recover()

    def test_new_store_is_empty_and_clean(self) -> None:
        """Nothing in it, and the first order is 1 or above."""
        store, recovery = self._reopened()
        store.close()
        assert summarize(recovery) == summarize(StoreModel().recovery())
        assert recovery.clean
        assert not recovery.quarantined

    def test_jobs_come_back_in_order_with_every_field(self) -> None:
        """Orders may have gaps; ids sort differently; every field survives."""
        first = accepted(
            1,
            id="zeta",
            session="s",
            priority=-3,
            due=2e9,
            run_at=CREATED,
            max_attempts=7,
            timeout=float("inf"),
            metadata=b"\x80",
        )
        jobs = [first, accepted(5, id="mid"), accepted(6, id="alpha", payload=bytes(range(256)))]
        store, _ = self._reopened()
        store.commit(jobs[:1])
        store.commit(jobs[1:])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.accepted for job in recovery.live] == jobs
        assert [job.due for job in recovery.live] == [2e9, None, None]
        assert recovery.next_order == 7

    def test_orders_are_never_given_again(self) -> None:
        """Not even when their jobs have ended and nothing else is left."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(4)])
        store.commit([Ended(4), Ended(1)])
        store.maintain()
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert not recovery.live
        assert recovery.next_order == 5

    def test_ids_that_differ_stay_apart(self) -> None:
        """Not even by case, normal form or trailing space are two ids the same."""
        ids = ["é", "e\u0301", "E\u0301", "a", "a ", "A", "\U0001f600", "0", "00"]
        store, _ = self._reopened()
        store.commit([accepted(n, id=name) for n, name in enumerate(ids, 1)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.accepted.id for job in recovery.live] == ids

    def test_random_histories_add_up(self) -> None:
        """Whatever was committed, reopening tells what the model says."""
        for seed in range(20):
            rng = random.Random(seed)
            self._tell_history(rng, f"seed {seed}: ")

    def _tell_history(self, rng: random.Random, label: str) -> None:
        store, recovery = self._reopened()
        now = 4e9  # in the future, so that no duplicate window ends during the test
        model = model_of(recovery)
        for _ in range(rng.randrange(1, 15)):
            if rng.random() < 0.2:
                store.close()
                model.opened(clean=True)
                store, recovery = self._reopened()
                assert summarize(recovery) == summarize(model.recovery()), label
            if rng.random() < 0.2:
                store.maintain()
            store.commit(random_batch(model, rng, now=now), sync=rng.random() < 0.8)
        store.close()
        model.opened(clean=True)
        store, recovery = self._reopened()
        store.close()
        assert summarize(recovery) == summarize(model.recovery()), label

    def test_second_owner_is_refused(self) -> None:
        """One owner at a time; the next gets it when the first has closed it."""
        store, _ = self._reopened()
        try:
            self.open_store().recover()
        except JobStoreLockedError:
            pass
        else:
            raise AssertionError("two owners")
        store.commit([accepted(1)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert len(recovery.live) == 1

    def test_closed_store_refuses_and_closes_again(self) -> None:
        """After close, commits raise and keep nothing; another close does nothing."""
        store, _ = self._reopened()
        store.close()
        store.close()
        try:
            store.commit([accepted(1)])
        except JobStoreClosedError:
            pass
        else:
            raise AssertionError("a closed store took a job")
        store, recovery = self._reopened()
        store.close()
        assert recovery.live == []

    def test_unwritable_batch_is_refused_whole(self) -> None:
        """What cannot be encoded raises, and nothing of its batch is kept."""
        store, _ = self._reopened()
        try:
            store.commit([accepted(1), accepted(2, priority=2**70)])
        except (OverflowError, TypeError, ValueError):
            pass
        else:
            raise AssertionError("an int that msgpack cannot carry was taken")
        store.commit([accepted(3)])
        store.close()
        store, recovery = self._reopened()
        store.close()
        assert [job.order for job in recovery.live] == [3]

    def test_statistics_count(self) -> None:
        """Commits and operations are counted."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(2)])
        store.commit([Ended(1)])
        numbers = store.statistics()
        store.close()
        assert (numbers.commits, numbers.operations, numbers.failed) == (2, 3, False)
