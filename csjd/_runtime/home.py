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
        require_run(self._token, f"the {self._owner}", "its")


def require_run(token: trio.lowlevel.TrioToken, what: str, whose: str) -> None:
    """
    Refuse to be called from anywhere but the Trio run of *token*.

    Args:
        token: The run's.
        what: What was called, for the message.
        whose: Whose run that is, as a possessive.

    Raises:
        RuntimeError: This is another thread, or another Trio run.
    """
    if not (trio.lowlevel.in_trio_run() and trio.lowlevel.current_trio_token() is token):
        raise RuntimeError(
            f"{what} was called from outside {whose} Trio run: from one of its threads use "
            "trio.from_thread.run or trio.from_thread.run_sync, from any other thread the same "
            "with trio_token="
        )
