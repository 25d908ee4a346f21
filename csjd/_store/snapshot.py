"""
A snapshot: everything a store knows up to one record, in a file of its own.

It is written like a segment: beside, synced, renamed, directory synced. Its footer is its
last record and says how many entries came before; without it nothing in it counts. No
crash can leave a broken snapshot under its name, so a broken one is damage.
"""

from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from csjd._store.batches import (
    Broken,
    Entry,
    Footer,
    Foreign,
    decode_entries,
    encode_entries,
)
from csjd._store.files import Directory, FileLayer, write_all
from csjd._store.framing import (
    HEADER_BYTES,
    SALT_BYTES,
    DamageError,
    FileKind,
    Header,
    RecordKind,
    Source,
    pack_record,
    sound_records,
)
from csjd._store.pacing import Pacer

# One sync of a large file at its end would hold up the log's own syncs behind it.
_SYNC_EVERY: Final = 4 << 20

_footer_encoder: Final = msgspec.msgpack.Encoder()
_footer_decoder: Final = msgspec.msgpack.Decoder(Footer)


def snapshot_name(through: int) -> str:
    """Return the name of the snapshot that covers all records up to that number."""
    return f"snap-{through:020d}"


def write_snapshot(
    files: FileLayer,
    directory: Directory,
    *,
    store_id: bytes,
    through: int,
    entries: Iterable[list[Entry | Foreign]],
    next_order: int,
    pacer: Pacer,
) -> tuple[int, int]:
    """
    Write a snapshot, durable and under its name when this returns.

    Returns:
        Its size in bytes, and the number of its entries.

    Raises:
        OSError: It could not be written. It may exist all the same, whole.
    """
    name = snapshot_name(through)
    file = directory.create(name + ".tmp")
    try:
        header = Header(
            kind=FileKind.SNAPSHOT,
            store_id=store_id,
            first=through,
            salt=files.entropy(SALT_BYTES),
        )
        write_all(file.write, header.pack(), 0)
        end = HEADER_BYTES
        count = number = synced = 0
        for piece in entries:
            number, count = number + 1, count + len(piece)
            data = pack_record(
                number, 0, RecordKind.ENTRIES, encode_entries(piece), seed=header.seed
            )
            write_all(file.write, data, end)
            end += len(data)
            if end - synced > _SYNC_EVERY:
                file.sync()
                synced = end
            pacer(len(piece))
        footer = _footer_encoder.encode(Footer(count, next_order))
        data = pack_record(number + 1, 0, RecordKind.FOOTER, footer, seed=header.seed)
        write_all(file.write, data, end)
        file.sync()
        file.forget_cache()
        directory.rename(name + ".tmp", name)
        directory.sync()
        return end + len(data), count
    finally:
        file.close()


def read_snapshot(
    file: Source,
    header: Header,
    take: Callable[[Entry | Broken | Foreign], None],
    pacer: Pacer,
    *,
    keep_newer: bool = False,
) -> tuple[Footer, int]:
    """
    Hand every entry of a snapshot to *take*.

    Returns:
        The footer, and the file's size.

    Raises:
        DamageError: If it is not whole; some entries may have been handed over.
        NewerFormatError: As for `decode_entries`, and just so.
    """
    count, end = 0, HEADER_BYTES
    for record in sound_records(file, HEADER_BYTES, 1, header.seed):
        end = record.end
        if record.kind == RecordKind.ENTRIES:
            for entry in decode_entries(record.body, keep_newer=keep_newer):
                take(entry)
                count += 1
                pacer(1)
        elif record.kind == RecordKind.FOOTER:
            footer = _decode_footer(record.body, record.offset)
            if footer.entries != count or end != file.size():
                raise DamageError("its footer does not fit its contents", record.offset)
            return footer, end
        else:
            raise DamageError(f"a record of kind {record.kind}", record.offset)
    raise DamageError("an unreadable record in a snapshot", end)


def _decode_footer(body: bytes, offset: int) -> Footer:
    try:
        return _footer_decoder.decode(body)
    except msgspec.DecodeError as error:
        raise DamageError(f"its footer cannot be read: {error}", offset) from error
