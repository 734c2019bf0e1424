"""Unit tests touch no network: what would is refused."""

import socket

import grpc
import pytest


class NetworkInUnitTest(AssertionError):
    """A unit test tried to use the network; it belongs to tests/integration."""


def _refuse(*args: object, **kwargs: object) -> None:
    raise NetworkInUnitTest("unit tests open no sockets; move this test to tests/integration")


@pytest.fixture(autouse=True)
def _no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("bind", "connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, _refuse)
    for name in ("insecure_channel", "secure_channel", "server"):
        monkeypatch.setattr(grpc.aio, name, _refuse)
        monkeypatch.setattr(grpc, name, _refuse)
