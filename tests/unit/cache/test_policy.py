"""Keys tell every two requests apart, and nothing but the hash key's holder can make them."""

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pennyweight.cache.v1 import cache_pb2 as pb
from services.cache import policy, wire
from services.cache.policy import Key, Record, Request
from services.common.errors import BadRequest

KEY = b"0123456789abcdef"
OTHER_KEY = b"fedcba9876543210"

# Few letters, so that equal pieces at other places come up often.
texts = st.text(alphabet="ab\x00é", max_size=3)
floats32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
requests = st.builds(
    Request,
    turns=st.lists(st.tuples(texts, texts), max_size=3).map(tuple),
    response_format=texts,
    max_output_tokens=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 0.5]) | floats32,
    top_p=st.sampled_from([0.0, 1.0]) | floats32,
    top_k=st.integers(0, 3),
    seed=st.none() | st.integers(0, 3) | st.integers(0, 2**64 - 1),
    stop=st.lists(texts, max_size=3).map(tuple),
)
named = st.tuples(texts, texts, requests)


@given(named, named)
def test_keys_are_equal_exactly_where_tenant_route_and_request_are(one, other):
    assert (policy.key_of(KEY, *one) == policy.key_of(KEY, *other)) == (one == other)


@given(named)
def test_equal_requests_have_equal_keys(one):
    tenant, route, request = one
    again = Request(**{name: getattr(request, name) for name in Request.__slots__})
    assert policy.key_of(KEY, tenant, route, request) == policy.key_of(KEY, tenant, route, again)
    assert policy.key_of(KEY, *one).partition == policy.partition_of(KEY, tenant, route)


@given(texts, texts, texts, texts)
def test_partitions_differ_wherever_tenant_or_route_do(tenant, route, tenant2, route2):
    same = (tenant, route) == (tenant2, route2)
    first, second = (
        policy.partition_of(KEY, *names) for names in ((tenant, route), (tenant2, route2))
    )
    assert (first == second) == same


def test_texts_are_compared_byte_by_byte():
    composed, decomposed = Request([("user", "\u00e9")]), Request([("user", "e\u0301")])
    assert policy.key_of(KEY, "t", "r", composed) != policy.key_of(KEY, "t", "r", decomposed)


def test_keys_cannot_be_made_without_the_hash_key():
    request = Request([("user", "hi")])
    one, other = policy.key_of(KEY, "t", "r", request), policy.key_of(OTHER_KEY, "t", "r", request)
    assert one.digest != other.digest
    assert one.partition != other.partition


def test_minus_zero_is_zero():
    one, other = Request([], temperature=0.0), Request([], temperature=-0.0)
    assert policy.key_of(KEY, "t", "r", one) == policy.key_of(KEY, "t", "r", other)


CANONICAL = pb.CanonicalRequest(
    turns=[pb.Turn(role="user", content="hi")],
    response_format="json",
    max_output_tokens=1,
    temperature=0.5,
    top_p=0.5,
    top_k=1,
    seed=1,
    stop=["."],
)


def key_of_message(request):
    lookup = pb.LookupRequest(route="r", request=request, accepted_writers=[pb.Writer(tier="t")])
    return wire.read_lookup(KEY, "t", lookup)[0]


@pytest.mark.parametrize("field", [f.name for f in pb.CanonicalRequest.DESCRIPTOR.fields])
def test_every_field_of_the_request_is_in_the_key(field):
    changed = pb.CanonicalRequest()
    changed.CopyFrom(CANONICAL)
    changed.ClearField(field)
    assert changed != CANONICAL, "the example above must set every field"
    assert key_of_message(changed) != key_of_message(CANONICAL)


@pytest.mark.parametrize("field", [f.name for f in pb.Turn.DESCRIPTOR.fields])
def test_every_field_of_a_turn_is_in_the_key(field):
    changed = pb.CanonicalRequest()
    changed.CopyFrom(CANONICAL)
    changed.turns[0].ClearField(field)
    assert key_of_message(changed) != key_of_message(CANONICAL)


def test_no_seed_is_not_seed_zero():
    assert key_of_message(pb.CanonicalRequest()) != key_of_message(pb.CanonicalRequest(seed=0))


@pytest.mark.parametrize("place", ["request", "turn"])
def test_fields_of_a_newer_version_are_refused_rather_than_ignored(place):
    unknown = struct.pack("BB", 100 << 3 & 0x7F | 0x80, 100 >> 4) + b"\x01"
    request = pb.CanonicalRequest(turns=[pb.Turn(role="user")])
    (request if place == "request" else request.turns[0]).MergeFromString(unknown)
    with pytest.raises(BadRequest, match="does not know"):
        key_of_message(request)


# Leases

key = policy.key_of(KEY, "acme", "support", Request([("user", "hi")]))


def test_a_lease_survives_its_text():
    lease = policy.new_lease(key)
    assert policy.lease_from(policy.lease_text(lease), key.partition) == lease


def test_leases_of_one_key_differ():
    assert policy.new_lease(key) != policy.new_lease(key)


def test_a_lease_shown_in_another_partition_is_another_lease():
    lease = policy.new_lease(key)
    elsewhere = policy.partition_of(KEY, "rival", "support")
    assert policy.lease_from(policy.lease_text(lease), elsewhere) != lease


@given(st.text(max_size=80))
@example("")
@example("A" * 4)
@example("A" * 60)
@example("A" * 68)
def test_whatever_has_not_the_length_of_a_lease_is_none(text):
    found = policy.lease_from(text, key.partition)
    if found is not None:
        assert found.key.partition == key.partition
        assert len(found.key.digest) == policy.DIGEST_BYTES
        assert len(found.token) == policy.TOKEN_BYTES


# Records

record = Record(policy.writer_mark("small", "m", "int4"), b"the answer")


def test_a_record_survives_its_seal():
    assert policy.unsealed(KEY, key, policy.sealed(KEY, key, record)) == record


@given(st.data())
def test_a_damaged_record_is_no_record(data):
    good = policy.sealed(KEY, key, record)
    place = data.draw(st.integers(0, len(good) - 1))
    flip = data.draw(st.integers(1, 255))
    bad = good[:place] + bytes([good[place] ^ flip]) + good[place + 1 :]
    assert policy.unsealed(KEY, key, bad) is None
    assert policy.unsealed(KEY, key, good[:place]) is None


def test_a_record_serves_neither_another_key_nor_another_partition_nor_hash_key():
    good = policy.sealed(KEY, key, record)
    assert policy.unsealed(KEY, Key(key.partition, b"x" * 32), good) is None
    assert policy.unsealed(KEY, Key(b"x" * 16, key.digest), good) is None
    assert policy.unsealed(OTHER_KEY, key, good) is None


# Writers and answers


def test_an_entry_serves_whom_its_writer_is_accepted_by():
    large = policy.writer_mark("large", "m", "int4")
    assert policy.serves(record, frozenset({record.mark, large}))
    assert not policy.serves(record, frozenset({large}))


@given(st.tuples(texts, texts, texts), st.tuples(texts, texts, texts))
def test_writers_are_told_apart(one, other):
    assert (policy.writer_mark(*one) == policy.writer_mark(*other)) == (one == other)


@pytest.mark.parametrize("reason", policy.FINISH_REASONS)
def test_whole_answers_may_be_stored(reason):
    assert policy.flaws(finish_reason=reason, tier="small") == []


@pytest.mark.parametrize(
    ("reason", "tier", "field"),
    [
        ("cancelled", "small", "finish_reason"),
        ("", "small", "finish_reason"),
        ("stop", "", "writer.tier"),
    ],
)
def test_other_answers_may_not(reason, tier, field):
    flaws = policy.flaws(finish_reason=reason, tier=tier)
    assert [name for name, _ in flaws] == [field]


@pytest.mark.parametrize("most", [3, 7, 1000])
def test_each_tenant_that_waits_leaves_room_for_the_next(most):
    taken, shares = 0, []
    while taken < most:
        own = 0
        while policy.may_wait(own, taken, most):
            own, taken = own + 1, taken + 1
        shares.append(own)
    assert len(shares) > 1
    assert all(own <= sum(rest) + 2 for own, *rest in (shares[n:] for n in range(len(shares))))
    assert not policy.may_wait(0, taken, most)
