"""The network of a simulation: connections with latency, split reads, back-pressure, resets and cut cables."""

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from tests.sim.loop import OWNER, Owner, SimLoop

HIGH_WATER: Final = 65_536
LOW_WATER: Final = 16_384
_EOF: Final = b""
TICK: Final = 1e-6
"""Seconds between two arrivals on one connection: what is sent first comes first."""


class Network:
    """Addresses, and the connections between them."""

    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self._listening: dict[
            tuple[str, int], tuple[Owner | None, Callable[[], Any], contextvars.Context]
        ] = {}
        self._open: list[SimTransport] = []
        self._next_port = 20_000
        self.slow = 1.0
        """Latencies are this many times what they are on a good day."""
        self.slowest = 1.0

    def latency(self) -> float:
        """Seconds that a packet takes."""
        return self.rng.uniform(0.0001, 0.003) * self.slow

    def listen(self, owner: Owner | None, factory: Callable[[], Any], host: str, port: int) -> Any:
        """Take connections at an address; port 0 takes a free one."""
        if not port:
            self._next_port += 1
            port = self._next_port
        self._listening[host, port] = (owner, factory, contextvars.copy_context())
        address = SimpleNamespace(getsockname=lambda: (host, port))

        def close() -> None:
            self._listening.pop((host, port), None)

        return SimpleNamespace(sockets=[address], close=close)

    async def connect(self, owner: Owner | None, factory: Callable[[], Any], host: str, port: int) -> Any:
        """Open a connection. Raises ConnectionRefusedError."""
        await asyncio.sleep(self.latency())
        found = self._listening.get((host, port))
        if found is None or not (found[0] is None or found[0].is_alive):
            raise ConnectionRefusedError(f"{host}:{port}")
        there, accept, context = found
        near = SimTransport(self, owner, contextvars.copy_context())
        far = SimTransport(self, there, context)
        near.peer, far.peer = far, near
        self._open += [near, far]
        protocol = near.protocol = factory()
        protocol.connection_made(near)

        def accepted() -> None:
            far.protocol = accept()
            far.protocol.connection_made(far)

        self.loop.call_soon(accepted, context=context)
        return near, protocol

    def gone(self, owner: Owner) -> None:
        """A node died: its system closes what it had open."""
        for transport in self._open:
            if transport.owner is owner:
                transport.die()
        for address, (who, _, _) in list(self._listening.items()):
            if who is owner:
                del self._listening[address]

    def forget(self, transport: "SimTransport") -> None:
        """A connection is closed on this side."""
        if transport in self._open:
            self._open.remove(transport)


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, owner: Owner | None, context: contextvars.Context) -> None:
        super().__init__()
        self._network = network
        self._loop = network.loop
        self.owner = owner
        self._context = context
        self.peer: SimTransport | None = None
        self.protocol: Any = None
        self._is_closing = self._is_closed = self._is_paused = self._is_dead = False
        self._queue: deque[bytes] = deque()
        """Arrived and not read yet."""
        self._outstanding = 0
        self._is_full = False
        self._last_arrival = 0.0

    # -- what protocols ask -----------------------------------------------------------------------------------

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("10.0.0.1", 1) if name == "peername" else default

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> Any:
        return self.protocol

    def is_closing(self) -> bool:
        return self._is_closing

    def is_reading(self) -> bool:
        return not (self._is_paused or self._is_closing)

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._loop.call_soon(self._read, context=self._context)

    def get_write_buffer_size(self) -> int:
        return self._outstanding

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """As they are."""

    def write(self, data: Any) -> None:
        data = bytes(data)
        if self._is_closing or not data:
            return
        self._outstanding += len(data)
        if self._outstanding > HIGH_WATER and not self._is_full:
            self._is_full = True
            self.protocol.pause_writing()
        rng = self._network.rng
        while len(data) > 1 and rng.random() < 0.15:
            cut = rng.randrange(1, len(data))
            self._send(data[:cut])
            data = data[cut:]
        self._send(data)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._send(_EOF)

    def close(self) -> None:
        if not self._is_closing:
            self._is_closing = True
            self._send(_EOF)
            self._loop.call_soon(self._lost, None, context=self._context)

    def abort(self) -> None:
        if not self._is_closed:
            self._is_closing = True
            self._reset_peer()
            self._loop.call_soon(self._lost, None, context=self._context)

    # -- what happens to it -----------------------------------------------------------------------------------

    def die(self) -> None:
        """Its process is gone: nothing runs here any more, and the other side is told by the system."""
        self._is_dead = self._is_closing = self._is_closed = True
        self._reset_peer()

    def _send(self, data: bytes) -> None:
        at = max(self._loop.time() + self._network.latency(), self._last_arrival + TICK)
        self._last_arrival = at
        peer = self.peer
        if peer is not None:
            self._loop.call_at(at, peer.arrive, data, context=peer._context)

    def arrive(self, data: bytes) -> None:
        """Bytes, or the end of them."""
        if self._is_closing:
            if data and not self._is_dead:
                # to send to somebody who has closed resets the connection
                self._reset_peer()
            return
        self._queue.append(data)
        self._read()

    def _read(self) -> None:
        while self._queue and not self._is_paused and not self._is_closing:
            data = self._queue.popleft()
            if data == _EOF:
                if not self.protocol.eof_received():
                    self.close()
                return
            self.protocol.data_received(data)
            peer = self.peer
            if peer is not None:
                self._loop.call_soon(peer.taken, len(data), context=peer._context)

    def taken(self, size: int) -> None:
        """The other side has read so many bytes."""
        self._outstanding -= size
        if self._is_full and self._outstanding <= LOW_WATER:
            self._is_full = False
            if not self._is_closing:
                self.protocol.resume_writing()

    def _reset_peer(self) -> None:
        peer = self.peer
        if peer is not None and not peer._is_closed:
            at = max(self._loop.time() + self._network.latency(), self._last_arrival + TICK)
            self._loop.call_at(at, peer.reset, context=peer._context)

    def reset(self) -> None:
        """The other side reset it."""
        if not self._is_closing:
            self._is_closing = True
            self._lost(ConnectionResetError("reset"))

    def _lost(self, error: Exception | None) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._network.forget(self)
            if self.protocol is not None:
                self.protocol.connection_lost(error)


def in_context_of(owner: Owner) -> contextvars.Context:
    """A context whose callbacks belong to the owner."""
    context = contextvars.copy_context()
    context.run(OWNER.set, owner)
    return context
