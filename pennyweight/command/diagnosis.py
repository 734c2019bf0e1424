"""What is wrong where no call goes through: asked of the address itself, once a call has failed.

gRPC says "failed to connect" or "socket closed" of all of it. Connects anew, with the standard
library's TLS, which tells what it does not like; and asks the health service, which needs no key,
which of our services listens.
"""

import asyncio
import socket
import ssl
from dataclasses import dataclass
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pennyweight.address import ROUTER_PORT, SCALER_PORT, host_and_port, is_loopback
from pennyweight.channel import open_channel
from pennyweight.command.options import Target

SECONDS = 2.0

SERVICES = {
    "router": "pennyweight.router.v1.RouterService",
    "cache": "pennyweight.cache.v1.CacheService",
    "scaler": "pennyweight.scaler.v1.ScalerService",
}
USUAL_PORTS = {"router": ROUTER_PORT, "scaler": SCALER_PORT}

_EXPIRED, _OTHER_NAME, _OTHER_ADDRESS = 10, 62, 64
_STRANGER = (18, 19, 20, 21)
"""OpenSSL's numbers for certificates that nobody trusted has signed."""


@dataclass(frozen=True)
class Finding:
    """What is wrong, and what to do about it.

    `answers`: something does listen at the address.
    """

    sentence: str
    hint: str = ""
    answers: bool = True


def of_connection(target: Target, said: str) -> Finding:
    """Why no call reached the target; `said` is what gRPC told of it."""
    place = host_and_port(target.address)
    nobody = f"Nothing answers at {target.address}."
    usual = "Start it with `make up`." if is_loopback(target.address) else "Is --address right?"
    silent = Finding(nobody, f"{usual}\n({said})", answers=False)
    if place is None:
        return silent
    try:
        socket.create_connection(place, SECONDS).close()
    except socket.gaierror:
        sentence = f"There is no host named {place[0]}."
        return Finding(sentence, "Is --address right?", answers=False)
    except OSError:
        return silent
    if "http1" in said.lower():
        sentence = f"What listens at {target.address} speaks HTTP/1, not gRPC."
        return Finding(sentence, "Is it the port of the metrics?")
    try:
        found = _of_tls(target, *place)
    except OSError as error:
        found = Finding(f"{target.address} takes connections and ends them: {error}.")
    return found or Finding(
        f"{target.address} takes connections, but no calls: it may be starting, stopping, or no "
        "service of ours.",
        f"({said})",
    )


def of_service(target: Target, wanted: str) -> Finding | None:
    """Which of our services listens in place of the wanted one; None where it is that or none."""
    other = asyncio.run(_service_at(target))
    if other is None or other == wanted:
        return None
    usual = USUAL_PORTS[wanted]
    return Finding(
        f"{target.address} is the {other}, not the {wanted}.",
        f"Where nothing else was said, the {wanted} listens on port {usual}: see --address.",
    )


def _of_tls(target: Target, host: str, port: int) -> Finding | None:
    speaks = _speaks_tls(host, port)
    if speaks and not target.tls:
        return Finding(
            f"{target.address} speaks TLS, and was spoken to in plain text.",
            "Give --tls-ca: the PEM bundle that signed its certificate.",
        )
    if target.tls and not speaks:
        return Finding(
            f"{target.address} speaks plain text, not TLS.",
            "Leave out --tls-ca and --tls-certificate, and their variables.",
        )
    return _of_certificates(target, host, port) if target.tls else None


def _speaks_tls(host: str, port: int) -> bool:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with _connected(context, host, port):
            return True
    except ssl.SSLError as error:
        return "ALERT" in (error.reason or "")  # it answered in TLS, with a refusal
    except OSError:  # closed, or silent
        return False


def _of_certificates(target: Target, host: str, port: int) -> Finding | None:
    context = ssl.create_default_context(cafile=target.tls_ca)
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # no more strict than gRPC is
    if target.tls_certificate is not None and target.tls_key is not None:
        context.load_cert_chain(target.tls_certificate, target.tls_key)
    said = "closed"
    try:
        with _connected(context, host, port) as connection:
            # In TLS 1.3 a refusal of our certificate comes only now, where gRPC's greeting would.
            if connection.recv(1):
                return None
    except TimeoutError:
        return None
    except ssl.SSLCertVerificationError as error:
        return _of_theirs(target, host, port, error)
    except (ssl.SSLError, ConnectionError) as error:
        said = str(getattr(error, "reason", None) or error)
    if target.tls_certificate is None:
        return Finding(
            f"{target.address} asks callers for a certificate.",
            f"Give --tls-certificate and --tls-key.\n({said})",
        )
    return Finding(
        f"{target.address} does not accept the certificate in {target.tls_certificate}.",
        f"Was it signed by the authority that the service trusts?\n({said})",
    )


def _of_theirs(
    target: Target, host: str, port: int, error: ssl.SSLCertVerificationError
) -> Finding:
    whose = f"The certificate of {target.address}"
    if error.verify_code in (_OTHER_NAME, _OTHER_ADDRESS):
        context = ssl.create_default_context(cafile=target.tls_ca)
        context.check_hostname = False
        with _connected(context, host, port) as connection:
            certificate: Any = connection.getpeercert() or {}
        names = [name for _, name in certificate.get("subjectAltName", ())]
        return Finding(
            f"{whose} is not for {host}.",
            f"It is for: {', '.join(names)}. Use such a name in --address." if names else "",
        )
    if error.verify_code in _STRANGER:
        signed = f"was not signed by {target.tls_ca}" if target.tls_ca else "is not trusted"
        return Finding(f"{whose} {signed}.", f"({error.verify_message})")
    if error.verify_code == _EXPIRED:
        return Finding(f"{whose} has expired.")
    return Finding(f"{whose} is not accepted: {error.verify_message}.")


def _connected(context: ssl.SSLContext, host: str, port: int) -> ssl.SSLSocket:
    context.set_alpn_protocols(["h2"])
    plain = socket.create_connection((host, port), SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=host)
    except BaseException:
        plain.close()
        raise


async def _service_at(target: Target) -> str | None:
    channel = open_channel(
        target.address,
        tls_ca=target.tls_ca,
        tls_certificate=target.tls_certificate,
        tls_key=target.tls_key,
    )
    async with channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        for name, service in SERVICES.items():
            request = health_pb2.HealthCheckRequest(service=service)
            try:
                await stub.Check(request, timeout=SECONDS)
            except grpc.aio.AioRpcError:
                continue
            return name
    return None
