"""Keys, targets, requests and retries: what needs no network."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

import pennyweight as pw
from pennyweight.address import is_loopback
from pennyweight.channel import DEVELOPMENT_KEY, metadata_for, open_channel
from pennyweight.command.show import money
from pennyweight.request import request_of
from pennyweight.router.v1 import router_pb2 as pb
from pennyweight.wire import duration_of, event_of, lever_of, name_of, seconds_of
from services.common import credentials


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PENNYWEIGHT_API_KEY", raising=False)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:50051", True),
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("::1", True),
        ("127.0.0.1:50051", True),
        ("[::1]:50051", True),
        ("unix:/run/router", True),
        ("dns:///localhost:50051", True),
        ("ipv4:127.0.0.1:50051", True),
        ("router.example:50051", False),
        ("10.0.0.1:50051", False),
        ("dns:///router.example:443", False),
        ("localhost.example:50051", False),
    ],
)
def test_loopback(target: str, *, expected: bool) -> None:
    assert is_loopback(target) is expected


def test_the_development_key_is_the_services_own() -> None:
    assert DEVELOPMENT_KEY == credentials.DEVELOPMENT_KEY
    assert metadata_for("localhost:1") == (("authorization", f"Bearer {DEVELOPMENT_KEY}"),)


def test_the_development_key_never_leaves_the_machine() -> None:
    with pytest.raises(pw.Unauthenticated, match="PENNYWEIGHT_API_KEY") as refused:
        metadata_for("router.example:443")
    assert refused.value.reason == "KEY_MISSING"


def test_the_argument_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PENNYWEIGHT_API_KEY", "of-environment")
    assert metadata_for("router.example:443") == (("authorization", "Bearer of-environment"),)
    assert metadata_for("localhost:1", "given") == (("authorization", "Bearer given"),)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ValueError, match="go together"):
        open_channel("localhost:1", tls_certificate="chain.pem")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"priority": "urgent"}, "'urgent' is no priority class"),
        ({"cache_use": "never"}, "'never' is no cache use"),
        ({"json_schema": "{}", "regex": "a"}, "exclude each other"),
        ({"context": "one text"}, "must be a list of passages"),
        ({"validators": [pw.OneOf("yes")]}, "must be a list of texts, got 'yes'"),
        ({"validators": ["yes"]}, "'yes' is no validator"),
        ({"validators": [pw.JsonSchema({"a": {1, 2}})]}, "must be JSON"),
        ({"json_schema": {"a": float("nan")}}, "not JSON compliant"),
    ],
)
def test_words_outside_the_contract_are_refused(options: pw.Options, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        request_of(pb.GenerateRequest, "support-chat", "Hello", options)


def test_a_role_outside_the_contract_is_refused() -> None:
    with pytest.raises(ValueError, match="'robot' is no role"):
        request_of(pb.GenerateRequest, "r", [pw.Message("robot", "x")], {})  # type: ignore[arg-type]


def test_zero_is_not_absent() -> None:
    request = request_of(pb.GenerateRequest, "r", "x", {"temperature": 0.0, "seed": 0})
    assert request.sampling.HasField("temperature")
    assert request.sampling.HasField("seed")
    assert not request.sampling.HasField("top_p")
    request = request_of(pb.GenerateRequest, "r", "x", {"retrieval_confidence": 0.0})
    assert request.terms.signals.HasField("retrieval_confidence")


def test_names_that_later_versions_add_do_not_break_this_one() -> None:
    assert name_of(pb.Reason.DESCRIPTOR, "REASON", pb.REASON_CACHED) == "cached"
    assert name_of(pb.Reason.DESCRIPTOR, "REASON", 99) == "99"
    assert event_of(pb.GenerateResponse()) is None
    assert lever_of(pb.Lever(state=99)).state == "99"


@pytest.mark.parametrize(
    ("micro_usd", "shown"),
    [(0, "0 µ$"), (9_999, "9,999 µ$"), (40_000, "$0.0400"), (1_234_567_890, "$1,234.57")],
)
def test_money(micro_usd: int, shown: str) -> None:
    assert money(micro_usd) == shown


def test_durations_are_said_to_the_nanosecond() -> None:
    assert duration_of(0.29) == Duration(nanos=290_000_000)  # 0.29 * 1e9 is a little less
    assert seconds_of(duration_of(90.5)) == 90.5


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), 1e300, -1e30])
def test_what_is_no_duration_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a duration must be a number of seconds"):
        duration_of(seconds)


def test_an_option_that_there_is_not_is_refused_with_what_may_be_meant() -> None:
    options: Any = {"temprature": 2}
    with pytest.raises(TypeError, match=r"'temprature' is no option\. Did you mean temperature\?"):
        request_of(pb.CompleteRequest, "chat", "Hello", options)
