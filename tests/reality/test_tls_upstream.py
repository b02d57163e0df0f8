"""A provider behind TLS: certificate and host name are checked, answers are metered as in the clear."""

import asyncio
import contextlib
import ssl
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from outlay.flow.ledger.reader import LedgerReader
from outlay.testing import MockProvider
from tests.harness import MOCK_PRICES, RunningGateway, budget
from tests.reality.load import post

REQUEST = {"model": "gpt-test", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate for a host name or address, made by the openssl command."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", str(key), "-out", str(cert), "-days", "2", "-subj", "/CN=test"]
    command += ["-addext", f"subjectAltName={name}"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    return key, cert


@contextlib.contextmanager
def tls_front(upstream_port: int, key: Path, cert: Path) -> Iterator[int]:
    """A TLS terminator on loopback in front of a port."""
    started = threading.Event()
    state: dict[str, object] = {}

    async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ssl.SSLError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve() -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(cert, key)
        state["loop"], state["stop"] = asyncio.get_running_loop(), asyncio.Event()

        async def on_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            there, back = await asyncio.open_connection("127.0.0.1", upstream_port)
            await asyncio.gather(pipe(reader, back), pipe(there, writer))

        server = await asyncio.start_server(on_client, "127.0.0.1", 0, ssl=context)
        state["port"] = server.sockets[0].getsockname()[1]
        started.set()
        await state["stop"].wait()  # type: ignore[attr-defined]
        server.close()

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(5)
    yield state["port"]  # type: ignore[misc]
    state["loop"].call_soon_threadsafe(state["stop"].set)  # type: ignore[attr-defined]
    thread.join(5)


@pytest.mark.parametrize(
    ("name", "trusted", "status"),
    [("IP:127.0.0.1", True, 200), ("IP:127.0.0.1", False, 502), ("DNS:elsewhere.example", True, 502)],
)
def test_tls(tmp_path: Path, name: str, trusted: bool, status: int) -> None:
    key, cert = certificate(tmp_path, name)
    ca_file = str(cert) if trusted else ""
    with MockProvider(prices=MOCK_PRICES) as mock, tls_front(mock.port, key, cert) as port:
        url = f"https://127.0.0.1:{port}"
        with RunningGateway(tmp_path / "l.db", url, [budget("all", "1")], ca_file=ca_file) as gateway:
            reply = asyncio.run(post(gateway.url, REQUEST))
            assert reply.status == status
            if status == 200:
                streamed = asyncio.run(post(gateway.url, {**REQUEST, "stream": True}))
                assert streamed.finish == "length"
            gateway.call(gateway.books.flush)
            with LedgerReader(gateway.path) as reader:
                assert reader.totals()["spend_nanos"] == mock.meter.total_nanos
                assert reader.totals()["open_holds"] == 0
