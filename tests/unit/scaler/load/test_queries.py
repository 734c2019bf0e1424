"""What a Prometheus answers, and what of it is a signal."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.scaler.load.pages import Unanswered
from services.scaler.load.queries import NoNumber, Queries, number_of
from services.scaler.policy.sizing.settings import Query
from services.scaler.policy.sizing.views import Reading


def answer(kind: str, result: object, status: str = "success") -> bytes:
    return json.dumps({"status": status, "data": {"resultType": kind, "result": result}}).encode()


def series(value: str) -> dict[str, object]:
    return {"metric": {}, "value": [1.5, value]}


def test_one_number_is_an_answer():
    assert number_of(answer("vector", [series("12.5")])) == 12.5
    assert number_of(answer("scalar", [1.5, "3"])) == 3.0


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (answer("vector", [series("1"), series("2")]), "it gives 2 series"),
        (answer("matrix", []), "it gives a matrix"),
        (answer("scalar", [1, "+Inf"]), "it gives inf"),
        (answer("scalar", [1, "-2"]), "it gives -2.0"),
        (b'{"status": "error", "error": "parse error"}', "Prometheus refuses it: parse error"),
        (b"<html>", "its answer is not one of Prometheus"),
        (b"[" * 60_000, "its answer is not one of Prometheus"),
        (answer("scalar", [1, 10**400]), "its answer is not one of Prometheus"),
        (b"[]", "its answer is not one of Prometheus"),
    ],
)
def test_anything_else_is_none(body: bytes, said: str):
    with pytest.raises(NoNumber, match=said.replace("+", r"\+")):
        number_of(body)


@pytest.mark.parametrize("body", [answer("vector", []), answer("scalar", [1, "NaN"])])
async def test_an_answer_without_a_number_is_told_and_is_an_answer(body: bytes):
    queries = Queries("http://p", lambda: {("a", "q"): Query(query="q", target=5)}, clock=float)
    await queries.look(Pages(body))  # type: ignore[arg-type]
    reading = queries.reading("a", "q", "q")
    assert reading is not None
    assert math.isnan(reading.value)
    assert queries.wrong("a", "q") == "it gives no number"


@given(st.binary(max_size=100))
def test_no_bytes_raise_anything_else(body: bytes):
    with pytest.raises(NoNumber):
        number_of(body)


class Pages:
    """A Prometheus that answers as it is told."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self.asked: list[tuple[str, object]] = []

    async def get(self, url: str, query: object = None, **_: object) -> tuple[int, bytes]:
        self.asked.append((url, query))
        if self.body is None:
            raise Unanswered("it does not answer within 2 s")
        return 200, self.body


async def test_the_last_answer_stays_and_what_is_wrong_is_told():
    now = [1.0]
    asked = {("a", "backlog"): Query(query="sum(backlog)", target=5)}
    queries = Queries("http://p:9090/", lambda: asked, clock=lambda: now[0])
    pages = Pages(answer("scalar", [1, "7"]))
    await queries.look(pages)  # type: ignore[arg-type]
    assert pages.asked == [("http://p:9090/api/v1/query", {"query": "sum(backlog)"})]
    assert queries.reading("a", "backlog", "sum(backlog)") == Reading(7.0, 1.0)
    assert queries.reading("a", "backlog", "max(backlog)") is None, "the answer to another query"
    now[0] = 11.0
    await queries.look(Pages(None))  # type: ignore[arg-type]
    assert queries.reading("a", "backlog", "sum(backlog)") == Reading(7.0, 1.0)
    assert queries.wrong("a", "backlog") == "it does not answer within 2 s"
    await queries.look(pages)  # type: ignore[arg-type]
    assert queries.wrong("a", "backlog") == ""
    asked.clear()
    await queries.look(pages)  # type: ignore[arg-type]
    assert queries.reading("a", "backlog", "sum(backlog)") is None


async def test_without_an_address_nobody_is_asked():
    pages = Pages(b"")
    asked = {("a", "backlog"): Query(query="1", target=5)}
    await Queries("", lambda: asked).look(pages)  # type: ignore[arg-type]
    assert pages.asked == []
