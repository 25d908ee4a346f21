"""
A disk in memory that forgets what was not synced.

`SimFs` is a file layer for `FileJobStore(path, files=SimFs())`. What it promises is what
POSIX promises and no more: a file's contents survive a crash once the file was synced, or
they were written through; its name once the directory was. Until then each write, each
change of length and each change of a name may survive or not, in any combination; a write
may be torn, and may leave zeros or garbage where data should be. `crash_states` shows what
a crash at this moment could leave.

It can also fail: see `SimFs.fail`, `SimFs.room` and `SimFs.short_writes`. A failed sync
drops what it could not write, as Linux does: later reads show it, later syncs succeed,
and the disk never has it.
"""

import copy
import errno
import itertools
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

import attrs

from csjd._store.files import Directory, File, Lock
from csjd._store.lock import LockHeldError

_SECTOR: Final = 512
_MOST_CHANGES: Final = 6
"""Unsynced changes of one file up to which every subset is tried."""


@attrs.frozen
class _Write:
    offset: int
    data: bytes


@attrs.frozen
class _Resize:
    size: int


@attrs.define(eq=False)
class _Inode:
    durable: bytes = b""
    current: bytearray = attrs.field(factory=bytearray)
    pending: list[_Write | _Resize] = attrs.field(factory=list)
    room: int = 0
    """Bytes of the disk it takes."""


@attrs.frozen
class _Rename:
    """A change of the directory: *new* is now *inode*, and *old* is gone."""

    old: str | None
    new: str | None
    inode: _Inode | None


@attrs.define(eq=False)
class SimFs:
    """
    One simulated disk with one directory, whatever its path.

    Args:
        contents: Files that are there, durable, from the start.
        seed: Where all of its randomness comes from.
    """

    contents: Mapping[str, bytes] = attrs.field(factory=dict)
    seed: int = 0
    room: int | None = None
    """Bytes left; None: no end of them."""
    short_writes: bool = False
    """Whether a write may take less than it was given."""
    writes_through: bool = True
    """Whether a write can be told to sync itself."""
    before: Callable[[str, str], None] | None = None
    """Called before each change with its kind (`write`, `sync`, `rename`, ...) and the file."""
    fail: Callable[[str, str], OSError | None] | None = None
    """Called the same way; the error it returns is raised instead."""
    growth: int = 512
    time: float = 1_700_000_000.0
    """Wall-clock seconds; yours to set."""
    pauses: int = 0
    """How often the store gave way to other threads."""
    _random: random.Random = attrs.field(init=False)
    _names: dict[str, _Inode] = attrs.field(init=False, factory=dict)
    _durable_names: dict[str, _Inode] = attrs.field(init=False, factory=dict)
    _renames: list[_Rename] = attrs.field(init=False, factory=list)
    _locked: "_SimLock | None" = attrs.field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        self._random = random.Random(self.seed)
        for name, data in self.contents.items():
            self._names[name] = _Inode(data, bytearray(data), room=len(data))
        self._durable_names = dict(self._names)

    # --- the file layer ---

    def open_directory(self, path: str, *, create: bool) -> Directory:
        """Open the one directory there is."""
        return _SimDirectory(self)

    def now(self) -> float:
        """Return `time`."""
        return self.time

    def entropy(self, count: int) -> bytes:
        """Return bytes from the seed."""
        return self._random.randbytes(count)

    def pause(self) -> None:
        """Count."""
        self.pauses += 1

    # --- what tests do with it ---

    def files(self) -> dict[str, bytes]:
        """Return what a process sees now: every file, synced or not."""
        return {name: bytes(inode.current) for name, inode in self._names.items()}

    def kill(self) -> None:
        """Let the process that uses it die: its lock is free, its writes are in the cache."""
        self._locked = None

    def survivor(self) -> "SimFs":
        """
        Return the disk as the next process finds it once this one's has died.

        What was written is there, synced or not, and may still be lost with the power.
        What the dead process goes on to do changes nothing of it.
        """
        other = SimFs(
            seed=self._random.randrange(1 << 30),
            room=self.room,
            short_writes=self.short_writes,
            writes_through=self.writes_through,
            growth=self.growth,
            time=self.time,
        )
        kept = copy.deepcopy((self._names, self._durable_names, self._renames))
        other._names, other._durable_names, other._renames = kept
        return other

    def crash_states(self, limit: int, rng: random.Random) -> Iterator[dict[str, bytes]]:
        """
        Yield what a loss of power at this moment could leave on the disk.

        All of it if there are at most *limit* combinations, else as many drawn by *rng*.
        The first two are that nothing, and that everything pending survived.
        """
        yield self._durable_state()
        yield self.files()
        directories = list(_directory_states(self._durable_names, self._renames, rng))
        contents: dict[int, list[bytes]] = {}
        for names in directories:
            for inode in names.values():
                if id(inode) not in contents:
                    contents[id(inode)] = list(_content_states(inode, rng))
        sizes = [
            _combinations(contents[id(node)] for node in names.values()) for names in directories
        ]
        if sum(sizes) <= limit:
            for names in directories:
                choices = [contents[id(inode)] for inode in names.values()]
                for picked in itertools.product(*choices):
                    yield dict(zip(names, picked, strict=True))
        else:
            for names in rng.choices(directories, weights=sizes, k=limit):
                yield {name: rng.choice(contents[id(inode)]) for name, inode in names.items()}

    def _durable_state(self) -> dict[str, bytes]:
        return {name: inode.durable for name, inode in self._durable_names.items()}

    # --- changes ---

    def _about_to(self, kind: str, name: str) -> OSError | None:
        if self.before is not None:
            self.before(kind, name)
        return None if self.fail is None else self.fail(kind, name)

    def _take_room(self, inode: _Inode, size: int, *, all_of_it: bool) -> int:
        """Let *inode* grow to *size* bytes, or as far as there is room; return how far."""
        more = size - inode.room
        if more > 0 and self.room is not None:
            if more > self.room and (all_of_it or self.room == 0):
                raise OSError(errno.ENOSPC, "No space left on device")
            more = min(more, self.room)
            self.room -= more
        inode.room += max(more, 0)
        return min(size, inode.room)

    def _give_room(self, inode: _Inode, size: int) -> None:
        if self.room is not None and inode.room > size:
            self.room += inode.room - size
        inode.room = min(inode.room, size)

    def _change_name(self, old: str | None, new: str | None, inode: _Inode | None) -> None:
        change = _Rename(old, new, inode)
        self._renames.append(change)
        _apply_rename(self._names, change)


@attrs.define(eq=False)
class _SimLock:
    _fs: SimFs
    note: str

    def release(self) -> None:
        if self._fs._locked is self:
            self._fs._locked = None

    def held(self) -> bool:
        return self._fs._locked is self


@attrs.define(eq=False)
class _SimFile:
    _fs: SimFs
    _name: str
    _inode: _Inode

    @property
    def writes_through(self) -> bool:
        return self._fs.writes_through

    def size(self) -> int:
        return len(self._inode.current)

    def read(self, offset: int, count: int) -> bytes:
        return bytes(self._inode.current[offset : offset + count])

    def write(self, data: bytes | memoryview, offset: int) -> int:
        if error := self._fs._about_to("write", self._name):
            raise error
        data = bytes(data)
        if self._fs.short_writes and len(data) > 1:
            data = data[: self._fs._random.randrange(1, len(data) + 1)]
        reach = self._fs._take_room(self._inode, offset + len(data), all_of_it=False)
        data = data[: reach - offset]
        self._change(_Write(offset, data))
        return len(data)

    def write_through(self, data: bytes | memoryview, offset: int) -> int:
        written = self.write(data, offset)
        error = self._fs._about_to("sync", self._name)
        inode, reach = self._inode, range(offset, offset + written)
        # The file's length has to last too, or the bytes could not be found again.
        changes = [each for each in inode.pending if _concerns(each, reach)]
        inode.pending = [each for each in inode.pending if not _concerns(each, reach)]
        if error:
            raise error  # as for `sync`
        self._keep(changes)
        return written

    def allocate(self, offset: int, count: int) -> None:
        if error := self._fs._about_to("allocate", self._name):
            raise error
        if count <= 0:
            raise OSError(errno.EINVAL, "Invalid argument")  # as posix_fallocate(3)
        self._fs._take_room(self._inode, offset + count, all_of_it=True)
        if offset + count > len(self._inode.current):
            self._change(_Resize(offset + count))

    def truncate(self, size: int) -> None:
        if error := self._fs._about_to("truncate", self._name):
            raise error
        self._fs._give_room(self._inode, size)
        self._change(_Resize(size))

    def sync(self) -> None:
        error = self._fs._about_to("sync", self._name)
        inode = self._inode
        changes, inode.pending = inode.pending, []
        if error:
            raise error  # and the changes are no longer waiting to be written
        self._keep(changes)

    def forget_cache(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _keep(self, changes: Iterable[_Write | _Resize]) -> None:
        durable = bytearray(self._inode.durable)
        for change in changes:
            _apply_change(durable, change)
        self._inode.durable = bytes(durable)

    def _change(self, change: _Write | _Resize) -> None:
        self._inode.pending.append(change)
        _apply_change(self._inode.current, change)


@attrs.define(eq=False)
class _SimDirectory:
    _fs: SimFs

    def names(self) -> list[str]:
        return list(self._fs._names)

    def open(self, name: str) -> File:
        if error := self._fs._about_to("open", name):
            raise error
        return _SimFile(self._fs, name, self._inode(name))

    def create(self, name: str) -> File:
        if error := self._fs._about_to("create", name):
            raise error
        if name in self._fs._names:
            self.unlink(name)
        inode = _Inode()
        self._fs._change_name(None, name, inode)
        return _SimFile(self._fs, name, inode)

    def rename(self, old: str, new: str) -> None:
        if error := self._fs._about_to("rename", old):
            raise error
        self._fs._change_name(old, new, self._inode(old))

    def unlink(self, name: str) -> None:
        if error := self._fs._about_to("unlink", name):
            raise error
        self._fs._give_room(self._inode(name), 0)
        self._fs._change_name(name, None, None)

    def sync(self) -> None:
        error = self._fs._about_to("sync_directory", "")
        changes, self._fs._renames = self._fs._renames, []
        if error:
            raise error
        for change in changes:
            _apply_rename(self._fs._durable_names, change)

    def lock(self, name: str, note: str) -> Lock:
        if error := self._fs._about_to("lock", name):
            raise error
        if self._fs._locked is not None:
            raise LockHeldError(self._fs._locked.note)
        self._fs._locked = _SimLock(self._fs, note)
        return self._fs._locked

    def close(self) -> None:
        pass

    def _inode(self, name: str) -> _Inode:
        try:
            return self._fs._names[name]
        except KeyError:
            raise FileNotFoundError(errno.ENOENT, "No such file", name) from None


def _concerns(change: _Write | _Resize, reach: range) -> bool:
    """Whether *change* has to be on the disk for the bytes of *reach* to be there."""
    if isinstance(change, _Resize):
        return True
    return change.offset < reach.stop and reach.start < change.offset + len(change.data)


def _apply_change(data: bytearray, change: _Write | _Resize) -> None:
    if isinstance(change, _Write):
        end = change.offset + len(change.data)
        if len(data) < end:
            data.extend(bytes(end - len(data)))
        data[change.offset : end] = change.data
    elif change.size < len(data):
        del data[change.size :]
    else:
        data.extend(bytes(change.size - len(data)))


def _apply_rename(names: dict[str, _Inode], change: _Rename) -> None:
    if change.old is not None:
        names.pop(change.old, None)
    if change.new is not None:
        assert change.inode is not None
        names[change.new] = change.inode


def _subsets(count: int, rng: random.Random) -> Iterator[list[bool]]:
    """Yield which of *count* changes survive: every subset, or prefixes and samples."""
    if count <= _MOST_CHANGES:
        for bits in range(1 << count):
            yield [bool(bits >> n & 1) for n in range(count)]
        return
    for cut in range(count + 1):
        yield [n < cut for n in range(count)]
    for _ in range(1 << _MOST_CHANGES):
        yield [rng.random() < 0.5 for _ in range(count)]


def _directory_states(
    durable: dict[str, _Inode], renames: list[_Rename], rng: random.Random
) -> Iterator[dict[str, _Inode]]:
    for survives in _subsets(len(renames), rng):
        names = dict(durable)
        for change in itertools.compress(renames, survives):
            _apply_rename(names, change)
        yield names


def _content_states(inode: _Inode, rng: random.Random) -> Iterator[bytes]:
    """Yield what a file may hold: any of its changes, whole; or all, with one write torn."""
    seen: set[bytes] = set()
    for data in itertools.chain(_whole_states(inode, rng), _torn_states(inode, rng)):
        if data not in seen:
            seen.add(data)
            yield data


def _whole_states(inode: _Inode, rng: random.Random) -> Iterator[bytes]:
    for survives in _subsets(len(inode.pending), rng):
        data = bytearray(inode.durable)
        for change in itertools.compress(inode.pending, survives):
            _apply_change(data, change)
        yield bytes(data)


def _torn_states(inode: _Inode, rng: random.Random) -> Iterator[bytes]:
    for at, torn in enumerate(inode.pending):
        if not isinstance(torn, _Write):
            continue
        for pieces in _torn(torn, rng):
            for rest in (inode.pending[at + 1 :], []):
                data = bytearray(inode.durable)
                for change in (*inode.pending[:at], *pieces, *rest):
                    _apply_change(data, change)
                yield bytes(data)


def _torn(write: _Write, rng: random.Random) -> Iterator[list[_Write]]:
    """Yield what may be left of one write."""
    size, start = len(write.data), write.offset
    if size < 2:
        return
    cuts = {rng.randrange(1, size) for _ in range(3)}
    first_sector = -start % _SECTOR or _SECTOR
    cuts.update(range(first_sector, size, _SECTOR))
    for cut in sorted(cuts):
        yield [_Write(start, write.data[:cut])]  # its beginning
        yield [_Write(start + cut, write.data[cut:])]  # its end, zeros or old bytes before
        yield [_Write(start, write.data[:cut] + bytes(size - cut))]
        yield [_Write(start, write.data[:cut] + rng.randbytes(size - cut))]
    yield [_Write(start, bytes(size))]
    yield [_Write(start, rng.randbytes(size))]


def _combinations(choices: Iterable[list[bytes]]) -> int:
    product = 1
    for options in choices:
        product *= len(options)
    return product
