"""The probe of containers tells whether a server serves."""

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from services.common.credentials import Keyring
from services.common.server import Server
from services.common.server_settings import ServerSettings
from services.common.telemetry import Tracing
from tests.integration.common.serving import serving


async def probe(*arguments: str) -> tuple[int | None, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.common.probe",
        *arguments,
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    return process.returncode, said.decode()


async def test_a_serving_server_is_well() -> None:
    async with serving() as running:
        assert await probe(f"127.0.0.1:{running.port}") == (0, "")


async def test_a_server_that_is_away_or_stops_serving_is_said() -> None:
    async with serving() as running:
        await running.server.set_serving(serving=False)
        code, said = await probe(f"127.0.0.1:{running.port}")
        assert (code, said) == (1, f"127.0.0.1:{running.port}: NOT_SERVING\n")
    code, said = await probe(f"127.0.0.1:{running.port}")
    assert code == 1
    assert "UNAVAILABLE" in said


@pytest.mark.parametrize("arguments", [(), ("a:1", "b", "c"), ("a:1", "--unknown")])
async def test_a_wrong_use_is_said(arguments: tuple[str, ...]) -> None:
    code, said = await probe(*arguments)
    assert code == 1
    assert said.startswith("usage: ")


async def test_files_that_are_away_or_not_whole_are_said(tmp_path: Path) -> None:
    code, said = await probe("localhost:1", str(tmp_path / "none.pem"))
    assert code == 1
    assert said == f"[Errno 2] No such file or directory: '{tmp_path / 'none.pem'}'\n"
    code, said = await probe("localhost:1", "--tls-key", "key.pem")
    assert (code, said) == (1, "--tls-certificate and --tls-key go together\n")


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A chain for localhost that signed itself, and its key."""
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    names = ("-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost")
    subprocess.run(
        ["openssl", "req", "-x509", *key, "-keyout", "k.pem", "-out", "c.pem", *names],
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    return tmp_path / "c.pem", tmp_path / "k.pem"


async def test_a_server_that_asks_for_a_certificate_is_shown_one(
    certificate: tuple[Path, Path],
) -> None:
    chain, secret = certificate
    settings = ServerSettings(
        listen="127.0.0.1:0", tls_certificate=chain, tls_key=secret, tls_client_ca=chain
    )
    server = Server(settings, Keyring.load(None), Tracing("test"))
    address = f"localhost:{await server.start()}"
    try:
        shown = ("--tls-certificate", str(chain), "--tls-key", str(secret))
        assert await probe(address, str(chain), *shown) == (0, "")
        code, said = await probe(address, str(chain))
        assert code == 1
        assert "UNAVAILABLE" in said
    finally:
        await server.close()
