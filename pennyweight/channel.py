"""How callers reach a service: the channel, TLS, and the API key shown with each call."""

import os
import ssl
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import grpc

from pennyweight.address import check_target, is_loopback
from pennyweight.errors import Unauthenticated

DEVELOPMENT_KEY = "pennyweight-development"
"""Published: services without a key file accept it, and those listen on loopback only."""

KEY_VARIABLE = "PENNYWEIGHT_API_KEY"

# gRPC takes 8 KiB of metadata from anybody; keys have 43 characters.
_KEY_CHARACTERS = 4096

PROXY_VARIABLE = "PENNYWEIGHT_USE_PROXY"
"""Set, a service that is not on this machine is reached through the proxy of ``https_proxy`` or
``http_proxy``, but for the hosts in ``no_proxy``."""

_OFF = ("", "0", "false", "no", "off")

KEEPALIVE_MS = 60_000

# What editors and shells put around a text: blanks, line ends, a byte order mark.
_AROUND = " \t\r\n\v\f\ufeff\xa0"


def open_channel(
    target: str,
    *,
    tls_ca: Path | str | None = None,
    tls_certificate: Path | str | None = None,
    tls_key: Path | str | None = None,
    tls: bool | None = None,
) -> grpc.aio.Channel:
    """Opens a channel inside a running event loop; it connects when first used.

    It uses no proxy, whatever the environment names, unless `PROXY_VARIABLE` is set.

    Args:
        target: host:port, or any gRPC target such as ``dns:///router.example:443``.
        tls_ca: PEM bundle that signed the service's certificate.
        tls_certificate: PEM chain to show to a service that asks for one; needs `tls_key`.
        tls_key: PEM key of `tls_certificate`.
        tls: whether to speak TLS. None: exactly when one of the files is given. True without
            `tls_ca` trusts gRPC's own roots.

    Raises:
        OSError: a file cannot be read.
        ValueError: the certificate or its key is missing; TLS cannot use one of the files; or the
            target is a URL, or names no port while TLS is not spoken.
    """
    if (tls_certificate is None) != (tls_key is None):
        raise ValueError("a TLS certificate and its key go together: tls_certificate and tls_key")
    options: list[tuple[str, int | str]] = [
        ("grpc.primary_user_agent", f"pennyweight/{version_here()}"),
        # A restarted service is found again within a second.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        # In spite of its name, the time that a connection may take to come up.
        ("grpc.min_reconnect_backoff_ms", 5_000),
        # A dead peer is noticed during a call; servers tolerate a ping a minute.
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", 10_000),
    ]
    if is_loopback(target) or os.environ.get(PROXY_VARIABLE, "").lower() in _OFF:
        options.append(("grpc.enable_http_proxy", 0))
    if tls is None:
        tls = tls_ca is not None or tls_certificate is not None
    if not tls:
        check_target(target)
        return grpc.aio.insecure_channel(target, options=options)
    if target.startswith(("http://", "https://")):
        check_target(target)
    authority, key, chain = _bytes(tls_ca), _bytes(tls_key), _bytes(tls_certificate)
    _check_files(tls_ca, tls_certificate, tls_key)
    credentials = grpc.ssl_channel_credentials(authority, key, chain)
    return grpc.aio.secure_channel(target, credentials, options=options)


def metadata_for(target: str, api_key: str | None = None) -> tuple[tuple[str, str], ...]:
    """What to send with each call: the key given, of the environment, or the development key.

    Blanks, line ends and a byte order mark around a key are taken off.

    Raises:
        Unauthenticated: there is no key, and the target is not on this machine; or the key cannot
            be sent as it is.
    """
    source, key = "api_key", (api_key or "").strip(_AROUND)
    if not key:
        source, key = KEY_VARIABLE, os.environ.get(KEY_VARIABLE, "").strip(_AROUND)
    if not key:
        if not is_loopback(target):
            raise _refused(
                f"no API key for {target}: set {KEY_VARIABLE}, or pass api_key in Python",
                "KEY_MISSING",
            )
        key = DEVELOPMENT_KEY
    wrong = _wrong_with(key)
    if wrong:
        raise _refused(f"the API key in {source} {wrong}", "KEY_MALFORMED")
    return (("authorization", f"Bearer {key}"),)


def _wrong_with(key: str) -> str:
    """What keeps a key from being sent, without a word of the key; empty: nothing."""
    if len(key) > _KEY_CHARACTERS:
        return f"has {len(key):,} characters, more than the {_KEY_CHARACTERS:,} that can be sent"
    for place, character in enumerate(key, start=1):
        if not "!" <= character <= "~":
            named = _NAMED.get(character) or (
                "a character that is not ASCII" if character > "~" else "a control character"
            )
            return f"has {named} as character {place}: a key is visible ASCII without blanks"
    return ""


_NAMED = {"\n": "a line end", "\r": "a line end", "\t": "a tab", " ": "a blank"}


def _refused(message: str, reason: str) -> Unauthenticated:
    return Unauthenticated(message, grpc.StatusCode.UNAUTHENTICATED, reason=reason)


def _check_files(
    ca: Path | str | None, certificate: Path | str | None, key: Path | str | None
) -> None:
    """Says which file TLS cannot use: gRPC itself only fails to connect."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    path = ca
    try:
        if ca is not None:
            context.load_verify_locations(ca)
        if certificate is not None and key is not None:
            path = certificate
            context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        beside = f" with the key {key}" if path is certificate else ""
        raise ValueError(f"TLS cannot use {path}{beside}: {error.reason or error}") from error


def _bytes(path: Path | str | None) -> bytes | None:
    return None if path is None else Path(path).read_bytes()


def version_here() -> str:
    """The version of this package that is installed."""
    try:
        return version("pennyweight")
    except PackageNotFoundError:  # run from a source tree
        return "source"
