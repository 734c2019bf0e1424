"""Handles name requests, and nobody else can make one."""

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.config import ConfigError
from services.router.evidence.handles import HandleSigner
from services.router.policy.judging import normalised

SIGNER = HandleSigner(b"a secret of this test")
HANDLE = SIGNER.sign("0123abcd", "acme", "chat", 1_700_000_000)


def test_a_handle_gives_its_request_back() -> None:
    assert SIGNER.verify(HANDLE, "acme", "chat") == ("0123abcd", 1_700_000_000)
    assert HANDLE.isascii()
    assert HANDLE.isprintable()


@pytest.mark.parametrize(("tenant", "route"), [("umbrella", "chat"), ("acme", "other"), ("", "")])
def test_a_handle_is_bound_to_tenant_and_route(tenant: str, route: str) -> None:
    assert SIGNER.verify(HANDLE, tenant, route) is None


def test_tenant_and_route_cannot_be_shifted_into_one_another() -> None:
    handle = SIGNER.sign("1", "ab", "c", 1)
    assert SIGNER.verify(handle, "a", "bc") is None


def test_another_secret_does_not_verify() -> None:
    assert HandleSigner(b"another secret").verify(HANDLE, "acme", "chat") is None


@given(st.integers(0, len(HANDLE) - 1), st.characters(exclude_categories=["Cs"]))
def test_a_changed_handle_does_not_verify(at: int, character: str) -> None:
    changed = HANDLE[:at] + character + HANDLE[at + 1 :]
    assert (SIGNER.verify(changed, "acme", "chat") is None) == (changed != HANDLE)


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_any_text_is_taken_and_none_verifies(text: str) -> None:
    assert SIGNER.verify(text, "acme", "chat") is None


def test_routers_with_the_same_file_trust_each_other(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("0123456789abcdef\n")
    handle = HandleSigner.load(file).sign("1", "acme", "chat", 1)
    assert HandleSigner.load(file).verify(handle, "acme", "chat") == ("1", 1)


def test_without_a_file_the_secret_is_random() -> None:
    handle = HandleSigner.load(None).sign("1", "acme", "chat", 1)
    assert HandleSigner.load(None).verify(handle, "acme", "chat") is None


@pytest.mark.parametrize("content", [None, b"", b" \n", b"short"])
def test_a_missing_or_guessable_secret_stops_the_start(
    tmp_path: Path, content: bytes | None
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="secret"):
        HandleSigner.load(file)


def test_a_digest_is_of_what_was_answered_not_of_how_it_is_spelt() -> None:
    assert SIGNER.digest("Card arrival.") == SIGNER.digest("  card ARRIVAL ")
    assert SIGNER.digest('{"a": 1, "b": [2]}') == SIGNER.digest('{"b":[2],"a":1.0}')
    assert SIGNER.digest("card arrival") != SIGNER.digest("card delivery")


def test_a_digest_cannot_be_made_without_the_secret() -> None:
    assert HandleSigner(b"another secret").digest("yes") != SIGNER.digest("yes")


def test_a_digest_is_no_code_of_a_handle() -> None:
    code = SIGNER.sign("0123", "acme", "chat", 17).rpartition(".")[2]
    signed = "0123.17\0acme\0chat"
    assert normalised(signed) == signed
    assert SIGNER.digest(signed) != base64.urlsafe_b64decode(code + "==").hex()


def test_a_question_has_a_name_that_is_not_its_answers_digest() -> None:
    name = SIGNER.question("Where is my card?")
    assert name == SIGNER.question("where is  my card")
    assert name != SIGNER.question("where is my purse")
    assert name != SIGNER.digest("Where is my card?")
    assert name != HandleSigner(b"another secret").question("Where is my card?")


def test_a_question_has_no_name_where_it_would_not_last() -> None:
    """Routers that each make up a secret would never meet the same question again."""
    assert HandleSigner.load(None).question("Where is my card?") == ""
    assert HandleSigner.load(None).digest("yes") != ""
