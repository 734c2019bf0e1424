"""The command as a process of its own, against a scripted router."""

import asyncio
import hashlib
import json
import os
import re
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from pennyweight.router.v1 import router_pb2 as pb
from services.common.config import parse_document
from services.common.credentials import KeyFile
from services.common.errors import BadRequest, Overloaded, Violation
from tests.integration.client.running import pennyweight, rows_of
from tests.integration.client.scripted_router import DECISION, ESCALATED, Stage, events, summary

QUESTION = "Where is my card?"


async def test_ask_streams_the_answer_and_sums_up(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert (ended.code, ended.out) == (0, "Your card usually reaches you.\n")
    assert ended.err == (
        "small (int8) · fixed tier · cache miss · 21 + 7 tokens · engine 80.5 ms · total 125 ms"
        " · 3 µ$, saved 37 µ$\n"
    )


async def test_ask_whole_explained(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.CompleteResponse(text="Soon.", summary=summary())]
    wishes = ("--whole", "--explain", "--cache", "bypass")
    ended = await pennyweight("ask", QUESTION, *wishes, PENNYWEIGHT_ADDRESS=stage.address)
    assert (ended.code, ended.out) == (0, "Soon.\n")
    assert ended.err.startswith("The route's policy names this tier.\nroute support-chat · tier")
    assert ended.err.endswith("saved 37 µ$\nhandle h-1\n")
    assert stage.router.requests[0].terms.cache_use == pb.CACHE_USE_BYPASS


async def test_ask_as_json(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--json", "--address", stage.address)
    lines = [json.loads(line) for line in ended.out.splitlines()]
    assert [line["kind"] for line in lines] == ["started", "delta", "delta", "finished"]
    assert lines[-1]["cost"] == {"micro_usd": 3, "baseline_micro_usd": 40, "estimated": False}


async def test_an_answer_cannot_steer_the_terminal(stage: Stage) -> None:
    stage.router.script = lambda _: events("\x1b[2JRed \x9b31m[bold]\n\tdone")
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert ended.code == 0, ended.err
    assert ended.out == "[2JRed 31m[bold]\n\tdone\n"


async def test_explain_and_routes(stage: Stage) -> None:
    stage.router.script = lambda _: [
        pb.ExplainResponse(decision=DECISION, prompt_tokens=21, max_micro_usd=90)
    ]
    ended = await pennyweight("explain", QUESTION, "--address", stage.address)
    assert ended.code == 0
    assert "21 prompt tokens · at most 90 µ$" in ended.out

    away = "no replica serves it; pool p serves smal (small int8)"
    tiers = [pb.Tier(name="small", model="small", precision="int8", ready_replicas=2, trouble=away)]
    route = pb.Route(name="support-chat", ladder=tiers, fixed_tier="small")
    stage.router.script = lambda _: [pb.ListRoutesResponse(routes=[route], policy_version="v1")]
    ended = await pennyweight("routes", "--address", stage.address)
    assert ended.code == 0
    assert "small ◂ answers" in ended.out
    assert "policy v1" in ended.out
    assert f"tier small: {away}\n" in ended.out


async def test_explain_shows_how_every_tier_was_weighed(stage: Stage) -> None:
    stage.router.script = lambda _: [pb.ExplainResponse(decision=ESCALATED, prompt_tokens=21)]
    ended = await pennyweight("explain", QUESTION, "--address", stage.address)
    assert rows_of(ended.out) == [
        [
            "small",
            "unsure",
            "3.1 points (skipped above 8.0 points)",
            "-0.710 (stands from -0.450)",
            "3 µ$",
        ],
        ["large", "chosen", "-", "-", "-"],
    ]
    assert ended.out.index("│ large") < ended.out.index("large answers: small was not sure")
    told = "policy v2 · calibration 2026-11-02-1a2b · evidence 5.0% · halted cache"
    assert told in ended.out


async def test_ask_explained_shows_the_tiers_beside_the_answer(stage: Stage) -> None:
    def escalated(_: object) -> list[pb.GenerateResponse]:
        first, *rest = events("Soon.")
        first.started.decision.CopyFrom(ESCALATED)
        return [first, *rest]

    stage.router.script = escalated
    ended = await pennyweight("ask", QUESTION, "--explain", "--address", stage.address)
    assert ended.out == "Soon.\n"
    assert [row[:2] for row in rows_of(ended.err)] == [["small", "unsure"], ["large", "chosen"]]


async def test_routes_show_what_is_certified(stage: Stage) -> None:
    certified = pb.RouteQuality(
        tolerance=0.02,
        calibration_version="v7",
        certified_bound=0.0184,
        expected_escalation_rate=0.26,
        expected_saving=0.4,
    )
    routes = [
        pb.Route(name="chat", quality=certified, ladder=[pb.Tier(name="small")]),
        pb.Route(name="new", quality=pb.RouteQuality(tolerance=0.01)),
        pb.Route(name="fixed", ladder=[pb.Tier(name="small")], fixed_tier="small"),
    ]
    on = [pb.Lever(route="chat", name=name, state=pb.LEVER_STATE_ON) for name in ("tier:small",)]
    stage.router.script = lambda asked: [
        pb.ListLeversResponse(levers=on)
        if isinstance(asked, pb.ListLeversRequest)
        else pb.ListRoutesResponse(routes=routes)
    ]
    ended = await pennyweight("routes", "--address", stage.address)
    rows = rows_of(ended.out)
    assert ["chat", "2.0 points", "1.8 points", "26%", "40%", "v7"] in rows
    assert ["new", "1.0 points", "-", "-", "-", "none: the top tier answers"] in rows
    assert [row[0] for row in rows if row[0] == "fixed"] == ["fixed"]


async def test_routes_say_what_is_refused(stage: Stage) -> None:
    refusal = pb.PolicyRefusal(
        file="policies/routes.yaml",
        problems=[
            pb.PolicyProblem(line=3, key="tiers.small.[/b]", rule="must be at least 1", value="0"),
            pb.PolicyProblem(rule="and 2 more problems"),
        ],
    )
    refusal.since.FromSeconds(1_800_000_000)
    stage.router.script = lambda _: [pb.ListRoutesResponse(refusal=refusal)]
    ended = await pennyweight("routes", "--address", stage.address)
    assert ended.out.startswith(
        "policies/routes.yaml is refused since 2027-01-15 08:00:00 UTC; "
        "the policies of before stay in force.\n"
        "  line 3: tiers.small.[/b]: must be at least 1, got 0\n"
        "  and 2 more problems\n"
    )
    ended = await pennyweight("routes", "--address", stage.address, "--json")
    (told,) = map(json.loads, ended.out.splitlines())
    assert (told["kind"], told["file"]) == ("refusal", "policies/routes.yaml")
    assert told["since"] == "2027-01-15T08:00:00+00:00"
    assert told["problems"][0] == {
        "line": 3,
        "key": "tiers.small.[/b]",
        "rule": "must be at least 1",
        "value": "0",
    }
    del refusal.problems[:]
    refusal.file = ""
    ended = await pennyweight("routes", "--address", stage.address)
    assert ended.out.startswith("A change of the policy files is refused since 2027-01-15")
    assert "Operators are told what is wrong with it." in ended.out


async def test_routes_promise_no_saving_while_its_tier_is_halted(stage: Stage) -> None:
    certified = pb.RouteQuality(
        tolerance=0.02, calibration_version="v7", expected_escalation_rate=0.26, expected_saving=0.4
    )
    route = pb.Route(name="chat", quality=certified, ladder=[pb.Tier(name="small")])
    states = {"tier:small": pb.LEVER_STATE_HALTED, "cache": pb.LEVER_STATE_HALTED}
    stage.router.script = lambda asked: [
        pb.ListLeversResponse(
            levers=[
                pb.Lever(route="chat", name=name, state=state) for name, state in states.items()
            ]
        )
        if isinstance(asked, pb.ListLeversRequest)
        else pb.ListRoutesResponse(routes=[route])
    ]
    ended = await pennyweight("routes", "--address", stage.address)
    assert ["chat", "2.0 points", "-", "-", "-", "v7; halted: tier:small"] in rows_of(ended.out)
    assert "40%" not in ended.out

    states["tier:small"] = pb.LEVER_STATE_UNKNOWN
    ended = await pennyweight("routes", "--address", stage.address, COLUMNS="300")
    told = "v7; halted while what routers share cannot be reached: tier:small"
    assert ["chat", "2.0 points", "-", "-", "-", told] in rows_of(ended.out)

    states["tier:small"] = pb.LEVER_STATE_ON  # the cache has no part in what was expected
    ended = await pennyweight("routes", "--address", stage.address)
    assert ["chat", "2.0 points", "-", "26%", "40%", "v7"] in rows_of(ended.out)


async def test_routes_begin_with_what_each_is_for(stage: Stage) -> None:
    routes = [pb.Route(name="chat", description="[/INST] [slug] :smile: \x1b[2J", fixed_tier="a")]
    stage.router.script = lambda _: [pb.ListRoutesResponse(routes=routes)]
    ended = await pennyweight("routes", "--address", stage.address)
    assert ended.code == 0, ended.err
    assert ended.out.startswith("chat  [/INST] [slug] :smile: [2J")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            BadRequest.of(Violation("sampling.max_output_tokens", "must be at most 256")),
            "sampling.max_output_tokens: must be at most 256\n",
        ),
        (
            Overloaded("no room", reason="QUEUE_FULL", handle="h-9", retry_after_seconds=2),
            "no room (request h-9)\nTry again in 2 s.\n",
        ),
    ],
)
async def test_refusals_read_as_sentences(stage: Stage, error: Exception, said: str) -> None:
    stage.router.script = lambda _: [error]
    ended = await pennyweight("ask", QUESTION, "--address", stage.address)
    assert (ended.code, ended.out) == (1, "")
    assert ended.err == said


async def test_a_wrong_key_is_said(stage: Stage) -> None:
    ended = await pennyweight("routes", PENNYWEIGHT_ADDRESS=stage.address, PENNYWEIGHT_API_KEY="x")
    assert ended.code == 1
    assert ended.err.startswith("unknown API key\n")


@pytest.mark.parametrize("command", [("ask", QUESTION), ("routes",), ("pools",)])
async def test_nothing_running(command: tuple[str, ...]) -> None:
    ended = await pennyweight(*command, "--address", "127.0.0.1:1")
    assert ended.code == 3
    assert ended.err.startswith("Nothing answers at 127.0.0.1:1.\nStart it with `make up`.\n")


async def test_all_that_can_be_wished_for_reaches_the_request(stage: Stage, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    wishes = (
        *("--system", "Be short.", "--temperature", "0.5", "--priority", "batch"),
        *("--json-schema", str(schema), "--max-output-tokens", "9"),
    )
    stage.router.script = lambda asked: (
        [pb.ExplainResponse(decision=DECISION)]
        if isinstance(asked, pb.ExplainRequest)
        else list(events("Soon."))
    )
    for command in ("ask", "explain"):
        ended = await pennyweight(command, QUESTION, *wishes, "--address", stage.address)
        assert ended.code == 0, ended.err
        asked = stage.router.requests.pop()
        assert [(one.role, one.content) for one in asked.prompt.messages] == [
            (pb.ROLE_SYSTEM, "Be short."),
            (pb.ROLE_USER, QUESTION),
        ]
        assert asked.prompt.response_format.json_schema == '{"type": "object"}'
        assert (asked.sampling.temperature, asked.sampling.max_output_tokens) == (0.5, 9)
        assert asked.terms.priority == pb.PRIORITY_CLASS_BATCH
    await pennyweight("ask", "Hi", "--json-schema", "{}", "--address", stage.address)
    assert stage.router.requests.pop().prompt.response_format.json_schema == "{}"


@pytest.mark.parametrize("arguments", [("ask",), ("ask", "-"), ("ask", "--json"), ("explain",)])
async def test_a_question_comes_from_standard_input_too(
    arguments: tuple[str, ...], stage: Stage
) -> None:
    stage.router.script = lambda asked: (
        [pb.ExplainResponse(decision=DECISION)]
        if isinstance(asked, pb.ExplainRequest)
        else list(events("Soon."))
    )
    told = "\ufeffWo ist\nmeine Karte, schöne Grüße?\n".encode()
    ended = await pennyweight(*arguments, given=told, PENNYWEIGHT_ADDRESS=stage.address)
    assert ended.code == 0, ended.err
    (message,) = stage.router.requests[0].prompt.messages
    assert message.content == "Wo ist\nmeine Karte, schöne Grüße?"


@pytest.mark.parametrize(
    ("arguments", "given", "said"),
    [
        (("ask",), b"", "Nothing is asked.\nGive the question, or pipe it in.\n"),
        (("ask", " "), b"", "Nothing is asked.\n"),
        (("explain", "-"), b"\n \n", "Nothing is asked.\n"),
        (("ask",), b"h\xff", "Standard input is not UTF-8 text.\n"),
        (("ask", "h\udcff"), b"", "What was given is not UTF-8 text.\n"),
        (("ask", "Hi", "--json-schema", "none.json"), b"", "--json-schema: none.json cannot be"),
        (("ask", "Hi", "--json-schema", "{a"), b"", "--json-schema is no JSON: "),
        (("ask", "Hi", "--tls-key", "a.pem", "--tls-ca", "a.pem"), b"", "a TLS certificate and"),
    ],
)
async def test_what_cannot_be_asked_is_wrong_usage(
    arguments: tuple[str, ...], given: bytes, said: str
) -> None:
    ended = await pennyweight(*arguments, given=given)
    assert (ended.code, ended.err[: len(said)]) == (2, said)


async def test_the_version() -> None:
    ended = await pennyweight("--version")
    assert (ended.code, ended.out) == (0, f"pennyweight {version('pennyweight')}\n")


@pytest.mark.parametrize("wish", [(), ("--json",), ("--whole",)])
async def test_a_reader_that_has_seen_enough_is_no_error(
    wish: tuple[str, ...], stage: Stage
) -> None:
    """As `head` is: more is written than a pipe holds."""
    text = "Your card is on its way. " * 40_000
    stage.router.script = lambda _: (
        [pb.CompleteResponse(text=text, summary=summary())] if "--whole" in wish else events(text)
    )
    command = (*(sys.executable, "-m", "pennyweight.command", "ask", QUESTION), *wish)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PENNYWEIGHT_ADDRESS": stage.address, "PENNYWEIGHT_API_KEY": ""},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    await process.stdout.readexactly(10)
    process.stdout._transport.close()  # type: ignore[attr-defined]
    told, code = await process.stderr.read(), await process.wait()
    if "--whole" in wish:  # one write, of which Python may not notice that it was cut short
        assert code in (0, 141)
        assert not re.search(b"Traceback|Errno|Exception", told)
    else:
        assert (code, told) == (141, b"")


async def test_a_failure_stays_one_where_nobody_reads() -> None:
    ended = await pennyweight("routes", "--address", "127.0.0.1:1")
    assert ended.code == 3


async def test_wrong_words_are_usage_errors(stage: Stage) -> None:
    ended = await pennyweight("ask", QUESTION, "--cache", "never", "--address", stage.address)
    assert (ended.code, ended.err) == (
        2,
        "'never' is no cache use. There are: bypass, refresh.\n",
    )
    ended = await pennyweight("ask", QUESTION, "--priority", "bach", "--address", stage.address)
    said = "'bach' is no priority class. Did you mean batch? There are: background, batch,"
    assert (ended.code, ended.err[: len(said)]) == (2, said)


@pytest.mark.parametrize("role", ["caller", "operator", "service"])
async def test_a_made_key_fits_the_key_file(role: str) -> None:
    ended = await pennyweight("key", "--tenant", "acme", "--role", role, "--json")
    told = json.loads(ended.out)
    assert hashlib.sha256(told["key"].encode()).hexdigest() == told["sha256"]
    assert (told["kind"], told["tenant"], told["role"]) == ("key", "acme", role)

    ended = await pennyweight("key", "--tenant", "acme", "--role", role)
    assert ended.code == 0
    entry = ended.err[ended.err.index("keys:") :]
    assert yaml.safe_load(entry)["keys"][0]["tenant"] == "acme"
    (parsed,) = parse_document(entry, KeyFile, source="entry").content.keys
    assert parsed.sha256 == hashlib.sha256(ended.out.strip().encode()).hexdigest()
    assert (parsed.role, parsed.critical) == (role, False)


async def test_a_key_may_be_made_for_critical_requests() -> None:
    ended = await pennyweight("key", "--tenant", "acme", "--critical")
    entry = ended.err[ended.err.index("keys:") :]
    (parsed,) = parse_document(entry, KeyFile, source="entry").content.keys
    assert (parsed.tenant, parsed.critical) == ("acme", True)
