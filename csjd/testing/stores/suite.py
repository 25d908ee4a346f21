"""What every `JobStore` must do, as tests."""

import random
from collections.abc import Callable, Sequence
from threading import Thread
from typing import Final

from csjd._model.errors import JobStoreClosedError, JobStoreLockedError
from csjd._model.storing import (
    DeadLettered,
    DeathReason,
    Discarded,
    Ended,
    Halted,
    Interrupted,
    JobStore,
    Operation,
    Placed,
    Postponed,
    Recovery,
    Requeued,
    Resumed,
    Started,
)
from csjd.testing.stores.checking import check, check_recovery, refused
from csjd.testing.stores.histories import CREATED, accepted, emptying_batch, random_batch
from csjd.testing.stores.model import StoreModel, model_of

# Names that some collations, normal forms and column types take for one another.
_ALIKE: Final = ("é", "e\u0301", "E\u0301", "a", "a ", "A", "\U0001f600", "0", "00")

_LONGEST_NAME: Final = 512
"""Bytes."""


class JobStoreSuite:
    """
    What every `JobStore` must do; subclass it in a test module, for pytest or by hand.

    Each test begins with an empty store; `open_store` is called again to reopen it. What
    holds after a death is in `JobStoreCrashSuite`, which is this one and more.
    """

    def open_store(self) -> JobStore:
        """Return an instance, not recovered yet, on what this test's others left."""
        raise NotImplementedError

    def _reopened(self) -> tuple[JobStore, Recovery]:
        store = self.open_store()
        return store, store.recover()

    def _told(self) -> Recovery:
        """Return what an owner is told who does nothing."""
        store, recovery = self._reopened()
        store.close()
        return recovery

    def _told_after(self, *batches: Sequence[Operation]) -> Recovery:
        """Return what the next owner is told after an owner of these *batches*."""
        store, _ = self._reopened()
        for batch in batches:
            store.commit(batch)
        store.close()
        return self._told()

    def _keeps(self, wrong: str, *batches: Sequence[Operation]) -> None:
        """Fail, saying what is *wrong*, unless these *batches* come back as they must."""
        model = StoreModel()
        for batch in batches:
            model.apply(batch)
        model.opened(clean=True)
        check_recovery(self._told_after(*batches), model, wrong)

    # --- what is kept ---

    def test_new_store_is_empty_and_clean(self) -> None:
        """Nothing in it, and the first order is 1 or above."""
        recovery = self._told()
        check_recovery(recovery, StoreModel(), "a new store is not empty")
        assert recovery.clean, "a new store is not `clean`, though nobody has left it open"
        check(recovery.quarantined, [], "a new store has something in quarantine")

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
            delay=7.5,
        )
        jobs = [first, accepted(5, id="mid"), accepted(6, id="alpha", payload=bytes(range(256)))]
        recovery = self._told_after(jobs[:1], jobs[1:])
        check([job.order for job in recovery.live], [1, 5, 6], "not in order of acceptance")
        check([job.accepted for job in recovery.live], jobs, "a job has changed")
        check([job.due for job in recovery.live], [2e9, None, None], "due times have changed")
        check([job.delay for job in recovery.live], [7.5, None, None], "delays have changed")
        check(recovery.next_order, 7, "`next_order` is not above every order used")

    def test_dead_letters_come_back_in_the_order_in_which_they_died(self) -> None:
        """Not that of their jobs; the oldest is the first to make room for others."""
        recovery = self._told_after(
            [accepted(order) for order in (1, 2, 3)], [_dead(order) for order in (2, 3, 1)]
        )
        orders = [letter.order for letter in recovery.dead_letters]
        check(orders, [2, 3, 1], "dead letters are not told in the order in which they died")

    def test_random_histories_add_up(self) -> None:
        """Whatever was committed, reopening tells what the model says."""
        for seed in range(20):
            rng = random.Random(seed)
            self._tell_history(rng, f"random history of seed {seed}")

    def _tell_history(self, rng: random.Random, label: str) -> None:
        store, recovery = self._reopened()
        now = 4e9  # in the future, so that no duplicate window ends during the test
        model = model_of(recovery)
        # Few jobs at a time, so that often the one of the highest order is not among them.
        if batch := emptying_batch(model):
            store.commit(batch)
        for _ in range(rng.randrange(1, 15)):
            if rng.random() < 0.2:
                store.close()
                model.opened(clean=True)
                store, recovery = self._reopened()
                check_recovery(recovery, model, label)
            if rng.random() < 0.2:
                store.maintain()
            store.commit(random_batch(model, rng, now=now), sync=rng.random() < 0.8)
        store.close()
        model.opened(clean=True)
        check_recovery(self._told(), model, label)

    def test_batch_of_thousands_is_kept_whole(self) -> None:
        """As large as `submit_batch` was given, or as many jobs as ended meanwhile."""
        self._keeps(
            "a large batch was not kept whole",
            [accepted(order) for order in range(1, 5001)],
            [Ended(order) for order in range(1, 4001)],
        )

    def test_sound_records_are_not_quarantined(self) -> None:
        """Nothing that makes sense is, whatever came of it."""
        recovery = self._told_after(
            [accepted(order, session="s") for order in range(1, 8)],
            [Started(1), Started(2), Interrupted(2), Postponed(3, 1, 2e9), Placed(4, 8)],
            [_dead(order) for order in (5, 6, 7)],
            [Requeued(6, 9), Discarded(7), Halted("s"), Resumed("s"), Halted("t"), Ended(8)],
        )
        check(recovery.quarantined, [], "something sound is in quarantine")

    # --- values come back as they were ---

    def test_payload_of_megabytes_comes_back_whole(self) -> None:
        """`Config.max_payload` is 1 MiB unless it is set to more."""
        large = bytes(range(256)) * (3 << 12)
        self._keeps(
            "a large payload or metadata has changed",
            [accepted(1, payload=large, metadata=large)],
        )

    def test_error_text_comes_back_whole(self) -> None:
        """The dispatcher cuts it at 4000 characters, of whatever kind."""
        text = "ValueError: line\nNUL\0tab\t" + "\U0001f600" * 3975
        self._keeps("a dead letter's error has changed", [accepted(1), _dead(1, text)])

    def test_longest_names_come_back_whole(self) -> None:
        """Ids, types and sessions have up to 512 bytes, in UTF-8."""
        names = [letter * (_LONGEST_NAME // len(letter.encode())) for letter in "xé\U0001f600"]
        self._keeps(
            f"names of {_LONGEST_NAME} bytes have changed",
            [accepted(n, id=name, type=name, session=name) for n, name in enumerate(names, 1)],
            [accepted(n, id=name[:-1]) for n, name in enumerate(names, 4)],
            [Ended(n, 4e9) for n, _ in enumerate(names, 4)],
            [Halted(name) for name in names],
        )

    def test_numbers_of_64_bits_come_back(self) -> None:
        """Priorities are whatever msgpack can carry; orders are never begun anew."""
        priorities = [-(1 << 63), -(1 << 31) - 1, 1 << 32, (1 << 63) - 1, (1 << 64) - 1]
        first = (1 << 40) + 1
        jobs = [accepted(first + n, priority=value) for n, value in enumerate(priorities)]
        self._keeps("a number has changed that fits in 64 bits", jobs)

    def test_ids_that_differ_stay_apart(self) -> None:
        """Not even by case, normal form or trailing space are two ids the same."""
        count = len(_ALIKE)
        self._keeps(
            "ids that differ were taken for the same, or changed",
            [accepted(n, id=name) for n, name in enumerate(_ALIKE, 1)],
            [accepted(count + n, id=f"{name}-") for n, name in enumerate(_ALIKE, 1)],
            [Ended(count + n, 4e9) for n in range(1, count + 1)],
        )

    def test_types_that_differ_stay_apart(self) -> None:
        """A type in another spelling has another handler, or none."""
        self._keeps(
            "types that differ were taken for the same, or changed",
            [accepted(n, type=name) for n, name in enumerate(_ALIKE, 1)],
        )

    def test_sessions_that_differ_stay_apart(self) -> None:
        """Nor is one of them halted because another is."""
        self._keeps(
            "sessions that differ were taken for the same, or changed",
            [accepted(n, session=name) for n, name in enumerate(_ALIKE, 1)],
            [Halted(name) for name in _ALIKE],
            [Resumed(name) for name in _ALIKE[::2]],
        )

    # --- orders and ids ---

    def test_orders_are_never_given_again(self) -> None:
        """Not even when their jobs have ended and nothing else is left."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(4)])
        store.commit([Ended(4), Ended(1)])
        store.maintain()
        store.close()
        recovery = self._told()
        check(recovery.live, [], "jobs that have ended live")
        check(recovery.next_order, 5, "`next_order` is not above the orders of ended jobs")

    def test_orders_of_ended_jobs_are_not_given_again_while_others_live(self) -> None:
        """Whatever became of the highest: ended, placed anew, a dead letter discarded."""
        ends: list[list[Operation]] = [
            [accepted(2), Ended(2)],
            [accepted(3), Placed(3, 4), Ended(4)],
            [accepted(5), _dead(5), Discarded(5)],
            [accepted(6), _dead(6), Requeued(6, 7), Ended(7)],
        ]
        told = [self._told_after([accepted(1)]).next_order]
        told += [self._told_after(batch).next_order for batch in ends]
        wrong = "`next_order` is not above every order ever used, also those of ended jobs"
        check(told, [2, 3, 5, 6, 8], wrong)

    def test_id_of_an_ended_job_may_be_used_again(self) -> None:
        """An id is unique among the living; `order` is what names a job."""
        self._keeps(
            "an id that is used again was lost or confused with its older use",
            [accepted(1, id="dead"), _dead(1), accepted(2, id="dead")],
            [_dead(2), accepted(3, id="dead", payload=b"third")],
            [accepted(4, id="ended"), Ended(4, 4e9), accepted(5, id="ended")],
        )

    # --- its owner ---

    def test_second_owner_is_refused(self) -> None:
        """One owner at a time; the next gets it when the first has closed it."""
        store, _ = self._reopened()
        with refused(JobStoreLockedError, "a second owner could open a store that is open"):
            self.open_store().recover()
        store.commit([accepted(1)])
        store.close()
        check(len(self._told().live), 1, "refusing a second owner has hurt the first")

    def test_refused_instance_does_not_free_the_lock(self) -> None:
        """Whoever was refused closes nothing but what it has itself."""
        store, _ = self._reopened()
        second = self.open_store()
        if second is store:  # as for a store in memory: then there is no instance to refuse
            return
        with refused(JobStoreLockedError, "a second owner could open a store that is open"):
            second.recover()
        second.close()
        with refused(JobStoreLockedError, "close() of a refused instance freed the owner's lock"):
            self.open_store().recover()
        store.commit([accepted(1)])
        store.close()
        check(len(self._told().live), 1, "close() of a refused instance has hurt the owner")

    def test_store_refuses_before_it_is_opened(self) -> None:
        """Without `recover` a commit raises and keeps nothing."""
        with refused(JobStoreClosedError, "commit() before recover() did not raise"):
            self.open_store().commit([accepted(1)])
        check(self._told().live, [], "commit() before recover() kept a job")

    def test_closed_store_refuses_and_closes_again(self) -> None:
        """After close, commits raise and keep nothing; another close does nothing."""
        store, _ = self._reopened()
        store.close()
        try:
            store.close()
        except Exception as error:
            raise AssertionError("closing twice must do nothing, but it raised") from error
        with refused(JobStoreClosedError, "commit() after close() did not raise"):
            store.commit([accepted(1)])
        check(self._told().live, [], "commit() after close() kept a job")

    def test_clean_close_is_told(self) -> None:
        """After it, what was running counts as interrupted and not as crashed."""
        recovery = self._told_after([accepted(1), Started(1)])
        assert recovery.clean, "`Recovery.clean` is false although the last owner has closed"
        check([job.crashes for job in recovery.live], [0], "a crash was counted at a clean close")
        assert self._told().clean, "`Recovery.clean` is false after an owner who did nothing"

    def test_any_thread_may_call(self) -> None:
        """The dispatcher calls from threads, never the same; `statistics` from Trio's own."""
        store = self.open_store()
        _in_a_thread("recover", store.recover)
        _in_a_thread("commit", lambda: store.commit([accepted(1)]))
        _in_a_thread("maintain", store.maintain)
        store.statistics()
        _in_a_thread("close", store.close)
        check(len(self._told().live), 1, "what another thread committed was not kept")

    def test_unwritable_batch_is_refused_whole(self) -> None:
        """What cannot be encoded raises, and nothing of its batch is kept."""
        store, _ = self._reopened()
        unwritable = [accepted(1), accepted(2, priority=2**70)]
        with refused(
            (OverflowError, TypeError, ValueError), "an int that msgpack cannot carry was taken"
        ):
            store.commit(unwritable)
        store.commit([accepted(3)])
        store.close()
        orders = [job.order for job in self._told().live]
        check(orders, [3], "a batch that was refused was kept in part, or the next was not")

    def test_statistics_count(self) -> None:
        """Commits and operations are counted."""
        store, _ = self._reopened()
        store.commit([accepted(1), accepted(2)])
        store.commit([Ended(1)])
        numbers = store.statistics()
        store.close()
        check(numbers.commits, 2, "`commits` is not the number of batches")
        check(numbers.operations, 3, "`operations` is not the number of operations in them")
        check(numbers.failed, False, "`failed` although nothing has failed")


def _dead(order: int, error: str = "ValueError: no") -> DeadLettered:
    return DeadLettered(order, 1, DeathReason.FAILED, error, 1e9)


def _in_a_thread(method: str, call: Callable[[], object]) -> None:
    """Make the *call* in a thread of its own; fail if it raises there."""
    errors: list[Exception] = []

    def run() -> None:
        try:
            call()
        except Exception as error:
            errors.append(error)

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise AssertionError(f"{method}() fails in another thread: {errors[0]!r}") from errors[0]
