"""
Just enough HTTP for the examples: a server on a free loopback port, and a GET.

Both are tasks of the same Trio program, so both end with it. For real work take a real
client and server.
"""

import functools
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import trio


@attrs.frozen
class Response:
    """What a server answers."""

    status: int
    body: str = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)


Respond: TypeAlias = Callable[[str], Response | None]
"""Answers the GET of a path; with None it hangs up."""


@asynccontextmanager
async def open_server(respond: Respond) -> AsyncIterator[int]:
    """Serve on a free loopback port, which the block gets, until the block is left."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            request = await _receive(stream, b"\r\n\r\n")
            path = request.split(b" ", 2)[1].decode()
            response = respond(path)
            if response is None:
                return
            head = [f"HTTP/1.0 {response.status} -", *map(": ".join, response.headers.items())]
            await stream.send_all("\r\n".join([*head, "", response.body]).encode())

    async with trio.open_nursery() as nursery:
        (listener, *_) = await nursery.start(
            functools.partial(trio.serve_tcp, serve, 0, host="127.0.0.1")
        )
        yield listener.socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def get(port: int, path: str) -> Response:
    """
    Return the answer to a GET of *path*.

    Raises:
        ConnectionError: The server hung up before it had answered.
    """
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        raw = await _receive(stream, None)
    head, found, body = raw.partition(b"\r\n\r\n")
    if not found:
        raise ConnectionError("the server hung up")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return Response(int(status.split()[1]), body.decode(), headers)


async def _receive(stream: trio.SocketStream, end: bytes | None) -> bytes:
    """Return what comes until *end* does, or until the other side is done."""
    received = b""
    async for chunk in stream:
        received += chunk
        if end is not None and end in received:
            break
    return received
