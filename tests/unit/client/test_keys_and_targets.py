"""Keys and addresses as people paste them: taken, or refused with a sentence before gRPC is."""

from pathlib import Path

import pytest

import pennyweight as pw
from pennyweight.address import check_target
from pennyweight.channel import metadata_for, open_channel


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENNYWEIGHT_API_KEY", raising=False)


@pytest.mark.parametrize(
    "pasted", ["key-1", " key-1", "key-1\n", "\tkey-1\r\n", "\ufeffkey-1", "\ufeff key-1\xa0"]
)
def test_what_surrounds_a_key_is_taken_off(pasted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert metadata_for("router.example:1", pasted) == (("authorization", "Bearer key-1"),)
    monkeypatch.setenv("PENNYWEIGHT_API_KEY", pasted)
    assert metadata_for("router.example:1") == (("authorization", "Bearer key-1"),)


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("key\n1", "a line end as character 4"),
        ("key\r1", "a line end as character 4"),
        ("k\tey", "a tab as character 2"),
        ("ke y", "a blank as character 3"),
        ("ke\x00y", "a control character as character 3"),
        ("ke\x7fy", "a character that is not ASCII as character 3"),
        ("kéy", "a character that is not ASCII as character 2"),
        ("k\u200bey", "a character that is not ASCII as character 2"),
        ("k\udcffey", "a character that is not ASCII as character 2"),
        ("k" * 5000, "5,000 characters, more than the 4,096"),
    ],
)
def test_a_key_that_cannot_be_sent_is_named_and_not_shown(
    key: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(pw.Unauthenticated, match=f"in api_key has {said}") as refused:
        metadata_for("localhost:1", key)
    assert refused.value.reason == "KEY_MALFORMED"
    assert key not in str(refused.value)
    if "\x00" in key:
        return  # no variable holds one
    monkeypatch.setenv("PENNYWEIGHT_API_KEY", key)
    with pytest.raises(pw.Unauthenticated, match=f"in PENNYWEIGHT_API_KEY has {said}"):
        metadata_for("localhost:1")


@pytest.mark.parametrize("blank", ["", " ", "\n", "\ufeff"])
def test_a_blank_key_is_none(blank: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENNYWEIGHT_API_KEY", blank)
    with pytest.raises(pw.Unauthenticated, match=r"no API key for router\.example:1") as refused:
        metadata_for("router.example:1", blank)
    assert refused.value.reason == "KEY_MISSING"


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "[::1]:50051",
        "dns:///router.example:443",
        "dns://8.8.8.8/router.example:443",
        "ipv4:10.0.0.1:1,10.0.0.2:1",
        "ipv6:[::1]:50051",
        "unix:/run/router",
        "unix-abstract:router",
        "vsock:1:2",
        "xds:///router",
    ],
)
def test_targets_of_grpc_pass(target: str) -> None:
    check_target(target)


@pytest.mark.parametrize(
    ("target", "write"),
    [
        ("localhost", "localhost:50051"),
        ("localhost:", "localhost:50051"),
        ("127.0.0.1", "127.0.0.1:50051"),
        ("::1", "[::1]:50051"),
        ("[::1]", "[::1]:50051"),
        ("router.example", "router.example:50051"),
        ("dns:///router.example", "router.example:50051"),
        ("ipv4:10.0.0.1:1,10.0.0.2", "10.0.0.2:50051"),
        ("", "localhost:50051"),
    ],
)
def test_a_target_without_a_port_is_named_with_what_to_write(target: str, write: str) -> None:
    with pytest.raises(ValueError, match="names no port") as refused:
        check_target(target)
    assert f"write {write} for a router" in str(refused.value)
    with pytest.raises(ValueError, match="names no port"):
        open_channel(target)


def test_a_url_is_no_target() -> None:
    with pytest.raises(ValueError, match="must be host:port, such as localhost:50051"):
        open_channel("http://localhost:50051/")
    with pytest.raises(ValueError, match=r"must be host:port, such as router\.example:443"):
        open_channel("https://router.example:443", tls=True)


def test_a_file_that_tls_cannot_use_is_named(tmp_path: Path) -> None:
    file = tmp_path / "ca.pem"
    file.write_text("no certificate")
    with pytest.raises(ValueError, match=r"TLS cannot use .*ca\.pem"):
        open_channel("localhost:1", tls_ca=file)
    with pytest.raises(ValueError, match=r"TLS cannot use .*ca\.pem with the key .*ca\.pem"):
        open_channel("localhost:1", tls_certificate=file, tls_key=file)
    with pytest.raises(FileNotFoundError, match=r"none\.pem"):
        open_channel("localhost:1", tls_ca=tmp_path / "none.pem")


@pytest.mark.parametrize(
    "port", ["0", "65536", "103419", "99999999999999999999", "-1", "http", "\u0665"]
)
def test_a_port_that_is_none_is_refused(port: str) -> None:
    """gRPC would connect to another one."""
    with pytest.raises(ValueError, match="must end in a port from 1 to 65535"):
        pw.Client(f"127.0.0.1:{port}")


@pytest.mark.parametrize(("value", "options"), [("0", 1), ("no", 1), ("", 1), ("1", 0), ("yes", 0)])
def test_the_proxy_is_off_unless_it_is_switched_on(
    value: str, options: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[dict] = []
    monkeypatch.setenv("PENNYWEIGHT_USE_PROXY", value)
    monkeypatch.setattr(
        "grpc.aio.insecure_channel", lambda _, options: opened.append(dict(options))
    )
    open_channel("router.example:50051")
    assert ("grpc.enable_http_proxy" in opened[0]) is bool(options)
