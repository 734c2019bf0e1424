"""A name server for one name, whose address a test changes: as when a container is replaced."""

import asyncio
import socket
import struct

QUESTION, NO_SUCH_NAME, IPV4 = 12, 3, 1
"""Where a message's question begins; a code of an answer; a kind of address."""


class Names(asyncio.DatagramProtocol):
    """Answers every question for an IPv4 address with `address`; empty: there is no such name.

    Attributes:
        asked: how many questions came.
    """

    def __init__(self) -> None:
        self.address = ""
        self.asked = 0
        self._closed = asyncio.Event()
        self._transport: asyncio.DatagramTransport

    async def open(self) -> str:
        """Begins to answer. Returns its own host:port."""
        loop = asyncio.get_running_loop()
        here = ("127.0.0.1", 0)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, local_addr=here)
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    async def close(self) -> None:
        self._transport.close()
        await self._closed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._closed.set()

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        self.asked += 1
        end = QUESTION
        while data[end]:
            end += data[end] + 1
        end += 5  # the name's last byte, kind and class
        (kind,) = struct.unpack(">H", data[end - 4 : end - 2])
        found = b""
        if self.address and kind == IPV4:
            found = struct.pack(">HHHIH", 0xC00C, IPV4, 1, 0, 4) + socket.inet_aton(self.address)
        flags = 0x8180 | (0 if self.address else NO_SUCH_NAME)
        counts = struct.pack(">HHHHH", flags, 1, 1 if found else 0, 0, 0)
        self._transport.sendto(data[:2] + counts + data[QUESTION:end] + found, addr)
