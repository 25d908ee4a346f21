"""Something to store: a job, and histories made up by chance."""

import random
from datetime import UTC, datetime
from typing import Any, Final

from csjd._model.storing import (
    Accepted,
    DeadLettered,
    DeathReason,
    Discarded,
    DueKind,
    Ended,
    Halted,
    Interrupted,
    Operation,
    Placed,
    Postponed,
    Requeued,
    Resumed,
    Started,
)
from csjd.testing.stores.model import StoreModel

CREATED: Final = datetime(2024, 2, 29, 12, 30, 15, 123456, tzinfo=UTC)


def accepted(order: int, **changes: Any) -> Accepted:
    """Return an `Accepted` for tests."""
    fields: dict[str, Any] = {
        "id": f"job-{order}",
        "type": "email",
        "payload": b"\x81\xa2to\xa5you@x",
        "created_at": CREATED,
    }
    return Accepted(order=order, **(fields | changes))


def random_batch(model: StoreModel, rng: random.Random, *, now: float = 1e9) -> list[Operation]:
    """
    Return one to five operations that make sense after what *model* was told, and tell it.

    Args:
        model: Changed.
        rng: Where all choices come from.
        now: Wall-clock seconds that due times and duplicate windows are around.
    """
    batch: list[Operation] = []
    for _ in range(rng.choice((1, 1, 2, 3, 5))):
        operation = _random_operation(model, rng, now)
        model.apply([operation])
        batch.append(operation)
    return batch


def emptying_batch(model: StoreModel) -> list[Operation]:
    """Return what ends all that *model* has, and tell it; ids of ended jobs stay."""
    batch: list[Operation] = [Ended(order) for order in sorted(model.live)]
    batch += [Discarded(order) for order in sorted(model.dead)]
    batch += [Resumed(session) for session in sorted(model.halted)]
    model.apply(batch)
    return batch


def _random_operation(model: StoreModel, rng: random.Random, now: float) -> Operation:
    if not model.live or rng.random() < 0.45:
        return _random_accepted(model, rng, now)
    order = rng.choice(sorted(model.live))
    until = rng.choice((0.0, now + rng.randrange(1, 1000)))
    kind = rng.randrange(11)
    if kind <= 2:
        return Ended(order, until)
    if kind == 3:
        return Started(order)
    if kind == 4:
        return Interrupted(order)
    if kind <= 6:
        attempts = model.live[order].attempts + rng.randrange(2)
        delay = rng.choice((None, rng.random()))
        return Postponed(order, attempts, now + rng.random(), rng.choice((*DueKind,)), delay)
    if kind == 7:
        return Placed(order, model.next_order + rng.randrange(3))
    if kind == 8:
        reason = rng.choice((*DeathReason,))
        return DeadLettered(order, rng.randrange(4), reason, "ValueError: no", now, until)
    if kind == 9 and model.dead:
        letter = rng.choice(sorted(model.dead))
        return rng.choice((Discarded(letter), Requeued(letter, model.next_order)))
    return rng.choice((Halted, Resumed))(f"s{rng.randrange(3)}")


def _random_accepted(model: StoreModel, rng: random.Random, now: float) -> Accepted:
    order = model.next_order + rng.choice((0, 0, 0, 2))
    return accepted(
        order,
        payload=rng.randbytes(rng.choice((0, 3, 20, 60))),
        session=rng.choice((None, "s0", "s1", "sessión")),
        priority=rng.choice((0, 0, 5, -1)),
        due=rng.choice((None, None, now + 7.5)),
        delay=rng.choice((None, 7.5)),
        timeout=rng.choice((None, float("inf"), 1.5)),
        metadata=rng.choice((b"", b"\x80")),
    )
