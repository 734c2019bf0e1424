"""Arguments of channels and servers: gRPC says nothing of a name that it does not know."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from grpc._cython import cygrpc

from pennyweight.channel import KEEPALIVE_MS
from services.common.channel import Peer
from services.common.server import MIN_PING_INTERVAL_MS

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("services", "pennyweight", "engines", "bench", "tools", "tests/making", "tests/e2e")
ARGUMENT = re.compile(r"grpc\.[a-z0-9_.]+")
LIBRARY = Path(cygrpc.__file__).read_bytes()


def trees() -> Iterator[tuple[Path, ast.AST]]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if "_pb2" not in path.name:
                yield path, ast.parse(path.read_text())


def arguments() -> dict[str, Path]:
    """The name in each pair of a name and a value."""
    found = {}
    for path, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Tuple) and len(node.elts) == 2:
                name = getattr(node.elts[0], "value", None)
                if isinstance(name, str) and ARGUMENT.fullmatch(name):
                    found[name] = path
    return found


def is_known(name: str) -> bool:
    """Whether the library holds it as a whole string; data before one may end in digits."""
    return re.search(rb"(?<![a-z_.])" + re.escape(name.encode()) + rb"\0", LIBRARY) is not None


def test_the_installed_library_knows_every_argument() -> None:
    named = arguments()
    assert {"grpc.so_reuseport", "grpc.enable_http_proxy"} <= named.keys()
    assert {name: str(path) for name, path in named.items() if not is_known(name)} == {}


@pytest.mark.parametrize(
    "name",
    ["grpc.http2.min_recv_ping_interval_without_data_ms", "grpc.so_reuse", "grpc.keepalive_time"],
)
def test_a_name_that_is_none_is_seen(name: str) -> None:
    assert not is_known(name)


def test_no_client_of_ours_pings_more_often_than_a_server_of_ours_allows() -> None:
    for every in (dict(Peer("a:1").options)["grpc.keepalive_time_ms"], KEEPALIVE_MS):
        assert every >= 2 * MIN_PING_INTERVAL_MS


def test_every_channel_of_services_and_callers_is_given_its_arguments() -> None:
    """One without would use a proxy that the environment names."""
    without = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in trees()
        if path.is_relative_to(ROOT / "services") or path.is_relative_to(ROOT / "pennyweight")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("insecure_channel", "secure_channel")
        and "options" not in {keyword.arg for keyword in node.keywords}
    ]
    assert without == []
