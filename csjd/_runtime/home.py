"""The Trio run that something of ours belongs to, where alone it may be used."""

import trio

from csjd._runtime.parking import run_of


class Home:
    """
    The Trio run in which this is made.

    Args:
        owner: What belongs to it, for the message.
    """

    __slots__ = ("_owner", "_token", "run")

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._token = trio.lowlevel.current_trio_token()
        self.run: object = run_of(trio.lowlevel.current_task())
        """What `run_of` says of its tasks."""

    def check(self) -> None:
        """
        Refuse to be called from elsewhere.

        Raises:
            RuntimeError: This is another thread, or another Trio run.
        """
        try:
            here = trio.lowlevel.current_trio_token()
        except RuntimeError:  # no Trio run at all
            here = None
        if here is not self._token:
            raise RuntimeError(
                f"the {self._owner} was called from outside its Trio run: from one of its "
                "threads use trio.from_thread.run or trio.from_thread.run_sync"
            )
