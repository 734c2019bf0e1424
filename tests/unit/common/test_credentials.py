"""Keys, the tenants they stand for, and who may act for whom."""

import hashlib
from pathlib import Path

import pytest

from services.common.config import ConfigError
from services.common.credentials import (
    DEVELOPMENT_KEY,
    Identity,
    Keyring,
    Role,
    current_identity,
    read_key,
    set_current_identity,
)
from services.common.errors import BadRequest, Forbidden, Unauthenticated


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    path = tmp_path / "keys.yaml"
    path.write_text(
        "keys:\n"
        f"  - {{sha256: {digest('for-acme')}, tenant: acme}}\n"
        f"  - {{sha256: {digest('for-us')}, tenant: pennyweight, role: service}}\n"
        f"  - {{sha256: {digest('for-ann')}, tenant: acme, role: operator}}\n"
        f"  - {{sha256: {digest('for-bob')}, tenant: acme, critical: true}}\n"
    )
    return Keyring.load(path)


def shown(key: str, tenant: str | None = None) -> list[tuple[str, str]]:
    metadata = [("user-agent", "test"), ("authorization", f"Bearer {key}")]
    return metadata if tenant is None else [*metadata, ("pennyweight-tenant", tenant)]


def test_a_key_tells_the_tenant(keyring: Keyring) -> None:
    assert keyring.identify(shown("for-acme")) == Identity("acme", Role.CALLER)
    assert keyring.identify(shown("for-us")) == Identity("pennyweight", Role.SERVICE)


def test_a_key_is_named_by_the_first_digits_of_its_hash(keyring: Keyring) -> None:
    digest = hashlib.sha256(b"for-acme").hexdigest()
    assert keyring.identify(shown("for-acme")).key_id == digest[:8]
    digest = hashlib.sha256(b"for-us").hexdigest()
    assert keyring.identify(shown("for-us", "acme")).key_id == digest[:8]


def test_operators_and_services_may_operate_and_callers_may_not(keyring: Keyring) -> None:
    operator = keyring.identify(shown("for-ann"))
    assert operator == Identity("acme", Role.OPERATOR)
    assert operator.may_operate
    assert keyring.identify(shown("for-us")).may_operate
    assert not keyring.identify(shown("for-acme")).may_operate


def test_who_may_be_critical_is_a_matter_of_the_key(keyring: Keyring) -> None:
    may = {
        key: keyring.identify(shown(key)).may_be_critical
        for key in ("for-acme", "for-ann", "for-bob", "for-us")
    }
    assert may == {"for-acme": False, "for-ann": False, "for-bob": True, "for-us": True}
    assert keyring.identify(shown("for-us", "acme")).may_be_critical
    assert not keyring.identify(shown("for-bob")).may_operate
    assert Keyring.load(None).identify(shown(DEVELOPMENT_KEY)).may_be_critical


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("wanted", Role)
def test_each_role_may_do_what_those_before_it_may(role: Role, wanted: Role) -> None:
    may = list(Role).index(role) >= list(Role).index(wanted)
    assert Identity("acme", role).may(wanted) is may
    if may:
        Identity("acme", role).require(wanted)
    else:
        with pytest.raises(Forbidden) as caught:
            Identity("acme", role).require(wanted)
        assert caught.value.reason == f"{wanted.upper()}S_ONLY"


def test_an_operator_acts_for_its_own_tenant_alone(keyring: Keyring) -> None:
    with pytest.raises(Forbidden):
        keyring.identify(shown("for-ann", "other"))


def test_a_service_acts_for_a_tenant(keyring: Keyring) -> None:
    assert keyring.identify(shown("for-us", "acme")) == Identity("acme", Role.SERVICE)


def test_a_caller_names_no_tenant_but_itself(keyring: Keyring) -> None:
    assert keyring.identify(shown("for-acme", "acme")) == Identity("acme", Role.CALLER)
    with pytest.raises(Forbidden) as caught:
        keyring.identify(shown("for-acme", "other"))
    assert caught.value.reason == "TENANT_FORBIDDEN"


@pytest.mark.parametrize("tenant", ["", "Acme", "a/b", "a b", "x" * 64])
def test_a_tenant_that_cannot_be_a_name_is_refused(keyring: Keyring, tenant: str) -> None:
    with pytest.raises(BadRequest, match="pennyweight-tenant"):
        keyring.identify(shown("for-us", tenant))


@pytest.mark.parametrize(
    "metadata",
    [
        None,
        [],
        [("authorization", "for-acme")],
        [("authorization", "Basic for-acme")],
        [("authorization", b"Bearer for-acme")],
        [("Authorization-Bin", b"Bearer for-acme")],
    ],
)
def test_no_key_is_refused(keyring: Keyring, metadata: list[tuple[str, str | bytes]]) -> None:
    with pytest.raises(Unauthenticated) as caught:
        keyring.identify(metadata)
    assert caught.value.reason == "KEY_MISSING"


@pytest.mark.parametrize("others", ["for-acme", "for-us", "unknown"])
def test_several_keys_are_refused_whichever_comes_last(keyring: Keyring, others: str) -> None:
    for metadata in (shown("for-acme") + shown(others), shown(others) + shown("for-acme")):
        with pytest.raises(Unauthenticated) as caught:
            keyring.identify(metadata)
        assert caught.value.reason == "KEY_REPEATED"


def test_several_tenants_are_refused(keyring: Keyring) -> None:
    with pytest.raises(BadRequest, match="pennyweight-tenant: is sent once"):
        keyring.identify([*shown("for-us", "acme"), ("pennyweight-tenant", "other")])


@pytest.mark.parametrize("key", ["", "for-acme ", "FOR-ACME", digest("for-acme"), DEVELOPMENT_KEY])
def test_an_unknown_key_is_refused_and_never_repeated(keyring: Keyring, key: str) -> None:
    with pytest.raises(Unauthenticated) as caught:
        keyring.identify(shown(key))
    assert caught.value.reason == "KEY_UNKNOWN"
    assert not key or key not in str(caught.value)


def test_without_a_key_file_the_development_key_alone_works() -> None:
    keyring = Keyring.load(None)
    assert keyring.identify(shown(DEVELOPMENT_KEY)) == Identity("development", Role.SERVICE)
    with pytest.raises(Unauthenticated):
        keyring.identify(shown("for-acme"))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("keys: []\n", "line 1: keys: "),
        ("keys:\n  - {sha256: abc, tenant: acme}\n", "line 2: keys.0.sha256: must be the SHA-256"),
        (f"keys:\n  - {{sha256: {'0' * 64}}}\n", "line 2: keys.0.tenant: is missing"),
        (
            f"keys:\n  - {{sha256: {'a' * 64}, tenant: A}}\n",
            "line 2: keys.0.tenant: must be a name",
        ),
        (
            f"keys:\n  - {{sha256: {'a' * 64}, tenant: a, role: king}}\n",
            "line 2: keys.0.role: must be caller, operator or service, got 'king'",
        ),
        (
            "keys:\n" + f"  - {{sha256: {'a' * 64}, tenant: a}}\n" * 2,
            "the key aaaaaaaa… appears twice",
        ),
    ],
)
def test_a_wrong_key_file_stops_the_start(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "keys.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Keyring.load(path)
    assert problem in str(caught.value)


def test_a_missing_key_file_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Keyring.load(tmp_path / "none.yaml")


def test_the_key_shown_to_others_is_the_files_content(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for content in ("secret\n", " secret\r\n", "\ufeffsecret"):
        path.write_text(content)
        assert read_key(path) == "secret"
    assert read_key(None) == DEVELOPMENT_KEY


@pytest.mark.parametrize("content", [None, "", " \n"])
def test_a_missing_or_empty_key_to_show_is_said(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match="key"):
        read_key(path)


@pytest.mark.parametrize("content", ["one\ntwo", "a key", "ke\ty", "schlüssel", "ke\x00y"])
def test_a_key_that_no_call_can_carry_is_not_shown(tmp_path: Path, content: str) -> None:
    path = tmp_path / "key"
    path.write_text(content)
    with pytest.raises(ConfigError, match="must hold one key and nothing else") as refused:
        read_key(path)
    assert content not in str(refused.value)


async def test_the_identity_is_bound_to_the_running_call() -> None:
    with pytest.raises(LookupError):
        current_identity()
    set_current_identity(Identity("acme"))
    assert current_identity().tenant == "acme"
