"""Where Redis is: what cannot be stops the start, of the cache and of the router alike."""

import os
import subprocess
import sys
import traceback
from pathlib import Path

import pytest

from services.cache.config import CacheSettings
from services.common.config import ConfigError, from_environment
from services.common.redis_link import RedisLink
from services.common.redis_settings import RedisSettings
from services.router.config import RouterSettings

SERVICES = (
    pytest.param(CacheSettings, "PENNYWEIGHT_CACHE_", "STORE", "memory", id="cache"),
    pytest.param(RouterSettings, "PENNYWEIGHT_ROUTER_", "STATE", "file", id="router"),
)
each_service = pytest.mark.parametrize(("kind", "prefix", "setting", "instead"), SERVICES)

SHAPE = "must be {instead}, redis://host:port or rediss://host:port"
PORT = "must have a port from 1 to 65535"
PASSWORD = "must hold no password: put it into {prefix}REDIS_PASSWORD_FILE"
DATABASE = "must end in nothing else than /number of a database"

BAD = (
    ("redis", SHAPE, "redis"),
    ("http://redis", SHAPE, "http://redis"),
    ("REDIS://host", SHAPE, "REDIS://host"),
    (" redis://host", SHAPE, " redis://host"),
    ("redis://ho\nst", SHAPE, r"redis://ho\nst"),
    ("redis://", SHAPE, "redis://"),
    ("redis://:6379", SHAPE, "redis://:6379"),
    ("redis://[::1", SHAPE, "redis://[::1"),
    ("redis://host?db=1", SHAPE, "redis://host…"),
    ("redis://host?password=s3cret", SHAPE, "redis://host…"),
    ("redis://host?\npassword=s3cret", SHAPE, "redis://host…"),
    ("redis://host?password=s3c@s3cret", SHAPE, "redis://…"),
    ("redis://host#1", SHAPE, "redis://host…"),
    ("redis://:s3cret@", PASSWORD, "redis://…@"),
    ("redis://:s3cret@host", PASSWORD, "redis://…@host"),
    ("redis://ann:s3cret@host:1", PASSWORD, "redis://…@host:1"),
    ("redis://ann:s3cret@host:many", PASSWORD, "redis://…@host:many"),
    ("redis://:s3c?ret@host", SHAPE, "redis://…"),
    (":s3cret@x://host", SHAPE, "…@x://host"),
    ("redis://127.0.0.1:notaport", PORT, "redis://127.0.0.1:notaport"),
    ("redis://host:0", PORT, "redis://host:0"),
    ("redis://host:-1", PORT, "redis://host:-1"),
    ("redis://host:65536", PORT, "redis://host:65536"),
    ("redis://host:1/first", DATABASE, "redis://host:1/first"),
    ("redis://host/1/2", DATABASE, "redis://host/1/2"),
)

GOOD = (
    "redis://host",
    "redis://host:6379/",
    "redis://host/15",
    "redis://ann@127.0.0.1:65535/1",
    "redis://[::1]:6379",
    "rediss://redis.example:6380",
)


def refused(kind: type, prefix: str, **values: object) -> str:
    """The one problem that stops the start."""
    with pytest.raises(ConfigError) as caught:
        from_environment(kind, prefix, {prefix + name: str(v) for name, v in values.items()})
    assert "s3c" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.source == "environment"
    (problem,) = caught.value.problems
    return problem


@each_service
@pytest.mark.parametrize(("address", "rule", "shown"), BAD, ids=[bad[0] for bad in BAD])
def test_an_address_that_is_none_is_refused_with_variable_rule_and_value(  # noqa: PLR0917
    kind: type, prefix: str, setting: str, instead: str, address: str, rule: str, shown: str
) -> None:
    problem = refused(kind, prefix, **{setting: address})
    assert (
        problem
        == f"{prefix}{setting}: {rule.format(prefix=prefix, instead=instead)}, got '{shown}'"
    )


@each_service
@pytest.mark.parametrize("address", GOOD)
async def test_an_address_that_is_one_makes_a_link(
    kind: type, prefix: str, setting: str, instead: str, address: str
) -> None:
    values = {prefix + setting: address}
    if kind is CacheSettings:
        values[f"{prefix}HASH_KEY_FILE"] = "key"
    chosen = from_environment(kind, prefix, values)
    link = chosen.redis.link(1)
    assert isinstance(link, RedisLink)
    await link.close()
    assert from_environment(kind, prefix, {prefix + setting: instead}).redis is None


@each_service
def test_a_ca_needs_tls(kind: type, prefix: str, setting: str, instead: str) -> None:
    del instead
    problem = refused(kind, prefix, **{setting: "redis://host", "REDIS_CA_FILE": "ca.pem"})
    rule = f"needs a rediss:// address in {prefix}{setting}"
    assert problem == f"{prefix}REDIS_CA_FILE: {rule}, got 'ca.pem'"


@each_service
def test_what_else_is_wrong_is_said_too(
    kind: type, prefix: str, setting: str, instead: str
) -> None:
    del instead
    environ = {prefix + setting: "redis://host:0", f"{prefix}SHELFS": "3"}
    with pytest.raises(ConfigError) as caught:
        from_environment(kind, prefix, environ)
    misspelt, address = caught.value.problems
    assert misspelt == f"{prefix}SHELFS: no such setting"
    assert address.startswith(f"{prefix}{setting}: ")


@pytest.mark.parametrize(
    ("address", "here"),
    [
        ("redis://127.0.0.1:6379", True),
        ("redis://ann@localhost/3", True),
        ("rediss://[::1]:6380", True),
        ("redis://redis:6379", False),
        ("redis://127.0.0.1.example", False),
        ("redis://10.0.0.1", False),
    ],
)
def test_whether_it_is_on_this_machine(address: str, *, here: bool) -> None:
    assert settings(address).is_here is here


def settings(address: str = "redis://host", **files: Path) -> RedisSettings:
    return RedisSettings(
        prefix="PENNYWEIGHT_SHOP_",
        setting="shelves",
        instead="none",
        address=address,
        password_file=files.get("password_file"),
        ca_file=files.get("ca_file"),
        timeout_seconds=1.0,
    )


def test_a_file_that_is_missing_is_named(tmp_path: Path) -> None:
    path = tmp_path / "none"
    with pytest.raises(ConfigError) as caught:
        settings(password_file=path).link(1)
    (problem,) = caught.value.problems
    rule = f"cannot be read: No such file or directory, got '{path}'"
    assert problem == f"PENNYWEIGHT_SHOP_REDIS_PASSWORD_FILE: {rule}"
    with pytest.raises(ConfigError) as caught:
        settings("rediss://host", ca_file=path).link(1)
    (problem,) = caught.value.problems
    assert problem == f"PENNYWEIGHT_SHOP_REDIS_CA_FILE: {rule}"


def test_a_ca_that_is_no_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(ConfigError, match=r"REDIS_CA_FILE: cannot be read: .*, got '.*ca\.pem'"):
        settings("rediss://host", ca_file=tmp_path / "ca.pem").link(1)


def test_a_password_that_is_no_text_is_refused_and_not_shown(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b"s3cret\xff")
    with pytest.raises(ConfigError, match=r"PASSWORD_FILE: .* it is not UTF-8") as caught:
        settings(password_file=tmp_path / "password").link(1)
    assert "s3cret" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("address", "user"), [("redis://host:1/2", ()), ("redis://a%40b@host:1/2", ("a@b",))]
)
async def test_a_password_comes_from_its_file_anew_for_each_connection(
    tmp_path: Path, address: str, user: tuple[str, ...]
) -> None:
    file = tmp_path / "password"
    file.write_text("s3cret\n")
    link = settings(address, password_file=file).link(1)
    pool = link._client.connection_pool.connection_kwargs
    assert (pool["host"], pool["port"], pool["db"]) == ("host", 1, 2)
    who = pool["credential_provider"]
    assert who.get_credentials() == (*user, "s3cret")
    file.write_text("changed")
    assert who.get_credentials() == (*user, "changed")
    file.unlink()  # as it may be for a moment
    assert who.get_credentials() == (*user, "changed")
    await link.close()


@each_service
def test_a_bad_port_ends_the_process_with_a_sentence(
    kind: type, prefix: str, setting: str, instead: str
) -> None:
    del kind, instead
    service = prefix.split("_")[1].lower()
    ended = subprocess.run(
        [sys.executable, "-m", f"services.{service}"],
        env=os.environ | {prefix + setting: "redis://127.0.0.1:notaport"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 2
    assert f"{prefix}{setting}: {PORT}, got 'redis://127.0.0.1:notaport'" in ended.stderr
    assert "Traceback" not in ended.stderr
