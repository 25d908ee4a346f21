"""
A process that uses a store until somebody kills it: `python -m tests.store.child PATH SEED`.

It begins where it left off, commits random batches, compacts often, and prints one line
after each promise, `<batches so far>`, so that its parent knows what must be there.
"""

import random
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

from csjd._store.file_store import FileJobStore
from csjd.testing.stores import StoreModel, random_batch
from tests.store.battery import NOW

COMPACT_AT = 4000


def history(seed: int, batches: int) -> list[StoreModel]:
    """Return the models after each batch of the one history that *seed* stands for."""
    rng = random.Random(seed)
    model = StoreModel()
    models = [model.copy()]
    for _ in range(batches):
        random_batch(model, rng, now=NOW + 1e9)
        models.append(model.copy())
    return models


def serve(path: Path, seed: int, batches: int, parent: "Connection[bytes, object]") -> None:
    """Do the same as a forked child, and tell the parent through a pipe."""
    work(str(path), seed, batches, lambda number: parent.send_bytes(b"%d" % number))


def main(path: str, seed: int, batches: int) -> None:
    print("open", flush=True)
    work(path, seed, batches, lambda number: print(number, flush=True))
    print("closed", flush=True)


def work(path: str, seed: int, batches: int, acknowledge: Callable[[int], None]) -> None:
    rng = random.Random(seed)
    model = StoreModel()
    store = FileJobStore(path, compact_at=COMPACT_AT)
    store.recover()
    for number in range(1, batches + 1):
        batch = random_batch(model, rng, now=NOW + 1e9)
        store.commit(batch)
        acknowledge(number)
        if store.statistics().maintenance_due:
            store.maintain()
    store.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
