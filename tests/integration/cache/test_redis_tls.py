"""Redis over TLS with a password."""

import subprocess

import pytest

from services.cache.__main__ import open_store
from services.cache.config import CacheSettings
from tests.integration.cache.harness import HASH_KEY, cache_over
from tests.integration.cache.messages import lookup
from tests.redis_server import RedisServer, free_port

pytestmark = pytest.mark.redis


@pytest.fixture
def certificate(tmp_path):
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    names = ["-addext", "subjectAltName=DNS:localhost"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*command.split(), *names, *files], check=True, capture_output=True)
    return tmp_path


async def test_tls_and_password_come_from_files(certificate):
    port = free_port()
    files = {"cert": certificate / "cert.pem", "key": certificate / "key.pem"}
    options = [f"--tls-port {port}", "--tls-auth-clients no", "--requirepass s3cret"]
    options += [f"--tls-{name}-file {path}" for name, path in files.items()]
    (certificate / "password").write_text("s3cret\n")
    settings = CacheSettings(
        store=f"rediss://localhost:{port}",
        redis_ca_file=certificate / "cert.pem",
        redis_password_file=certificate / "password",
        redis_timeout_seconds=2.0,
    )
    with RedisServer(*" ".join(options).split()):
        async with open_store(settings, HASH_KEY) as store, cache_over(store) as cache:
            assert cache.metric("store_up") == 1
            assert (await cache.lookup(lookup())).miss.lease
