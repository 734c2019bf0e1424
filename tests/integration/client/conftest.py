"""Certificates made for the tests."""

import subprocess
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Authorities `ca` and `other`, and `localhost` and `caller` signed by the first."""
    folder = tmp_path_factory.mktemp("pki")
    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
    signed = ("-CA", "ca.pem", "-CAkey", "ca.key")
    made = (
        ("-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority"),
        ("-keyout", "other.key", "-out", "other.pem", "-subj", "/CN=other authority"),
        ("-keyout", "localhost.key", "-out", "localhost.pem", "-subj", "/CN=localhost", *signed,
         "-addext", "subjectAltName=DNS:localhost"),
        ("-keyout", "caller.key", "-out", "caller.pem", "-subj", "/CN=caller", *signed),
    )  # fmt: skip
    for arguments in made:
        subprocess.run(
            ["openssl", "req", "-x509", *key, *arguments],
            cwd=folder,
            check=True,
            capture_output=True,
        )
    return folder
