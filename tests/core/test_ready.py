from hypothesis import given, settings, strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from csjd._core.entry import Entry
from csjd._core.ready import ReadyQueue
from tests.core.naive import entry


def _rank(each: Entry) -> tuple[int, int]:
    return -each.job.priority, each.order


class ReadyMachine(RuleBasedStateMachine):
    """The ready queue against a list that is sorted whenever somebody asks."""

    def __init__(self) -> None:
        super().__init__()
        self.queue = ReadyQueue()
        self.inside: list[Entry] = []
        self.outside: list[Entry] = []
        self.made = 0

    @rule(priority=st.integers(-3, 3))
    def push_new(self, priority: int) -> None:
        self.made += 1
        self._push(entry(self.made, priority))

    @rule(count=st.integers(50, 150), priority=st.integers(-2, 2))
    def push_many(self, count: int, priority: int) -> None:
        for _ in range(count):
            self.push_new(priority)

    @rule(count=st.integers(65, 140))
    def push_many_priorities(self, count: int) -> None:
        for priority in range(count):
            self.push_new(10 + priority)

    @precondition(lambda self: self.outside)
    @rule(data=st.data())
    def push_back(self, data: st.DataObject) -> None:
        self._push(self.outside.pop(data.draw(st.integers(0, len(self.outside) - 1))))

    def _push(self, each: Entry) -> None:
        self.queue.push(each)
        self.inside.append(each)

    @rule(count=st.integers(1, 90), oldest=st.booleans())
    def take(self, count: int, oldest: bool) -> None:
        for _ in range(count):
            found = self.queue.oldest() if oldest else self.queue.first()
            if found is None:
                assert not self.inside
                return
            key = (lambda each: each.order) if oldest else _rank
            assert found is min(self.inside, key=key)
            self.queue.take(found)
            self._leave(found)

    @rule(count=st.integers(1, 90), own_hands=st.booleans())
    def pop(self, count: int, own_hands: bool) -> None:
        for _ in range(count):
            found = self._pop_from_run() if own_hands else self.queue.pop()
            assert found is min(self.inside, key=_rank, default=None)
            if found is None:
                return
            found.holder = None
            self._leave(found)

    def _pop_from_run(self) -> Entry | None:
        """As a lane does."""
        if not self.queue.run:
            return self.queue.pop()
        found = self.queue.run.popleft()
        if found.holder is not self.queue:
            return self.queue.pop_past_dead()
        self.queue.size -= 1
        return found

    @precondition(lambda self: self.inside)
    @rule(data=st.data())
    def discard(self, data: st.DataObject) -> None:
        found = self.inside[data.draw(st.integers(0, len(self.inside) - 1))]
        self.queue.discard(found)
        self._leave(found)

    @rule(step=st.integers(2, 4))
    def discard_many(self, step: int) -> None:
        for found in self.inside[::step]:
            self.queue.discard(found)
            self._leave(found)

    @rule()
    def drain(self) -> None:
        assert self.queue.drain() == sorted(self.inside, key=lambda each: each.order)
        self.outside += self.inside
        self.inside.clear()

    def _leave(self, each: Entry) -> None:
        self.inside.remove(each)
        self.outside.append(each)

    @invariant()
    def agrees_with_the_list(self) -> None:
        assert self.queue.size == len(self.inside)
        living = [each for each in self.queue.run or () if each.holder is self.queue]
        assert not living or living[0] is min(self.inside, key=_rank)
        assert self.queue.first() is min(self.inside, key=_rank, default=None)
        assert self.queue.oldest() is min(self.inside, key=lambda e: e.order, default=None)
        assert all(each.holder is self.queue for each in self.inside)
        assert all(each.holder is None for each in self.outside)


ReadyMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
test_ready_queue_is_a_sorted_list = ReadyMachine.TestCase


@given(st.lists(st.integers(-2, 2), max_size=60))
def test_jobs_come_out_by_priority_then_acceptance(priorities: list[int]) -> None:
    queue = ReadyQueue()
    entries = [entry(order, priority) for order, priority in enumerate(priorities)]
    for each in entries:
        queue.push(each)
    out = []
    while (found := queue.first()) is not None:
        queue.take(found)
        out.append(found)
    assert out == sorted(entries, key=_rank)


def test_many_discarded_in_a_row_are_passed_over() -> None:
    queue = ReadyQueue()
    entries = [entry(number + 1) for number in range(5000)]
    for each in entries:
        queue.push(each)
    for each in entries[:2500]:
        queue.discard(each)
    assert queue.pop() is entries[2500]


def test_memory_follows_the_living() -> None:
    queue = ReadyQueue()
    entries = [entry(order, order % 5) for order in range(10_000)]
    for each in entries:
        queue.push(each)
    for each in entries[:-10]:
        queue.discard(each)
    held = sum(len(level.run) + len(level.strays) for level in queue._levels.values())
    assert held < 200


def test_memory_does_not_follow_priorities_used_once() -> None:
    queue = ReadyQueue()
    for number in range(10_000):
        queue.push(entry(number, number))
        found = queue.first()
        assert found is not None
        queue.take(found)
    assert len(queue._levels) + len(queue._tops) + len(queue._ages) < 1000
