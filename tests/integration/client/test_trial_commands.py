"""``scaler plan`` and ``scaler simulate``: what the scaler's trial came to, as it is printed."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from pennyweight.scaler.v1 import scaler_pb2 as pb
from pennyweight.scaler.v1 import scaler_pb2_grpc
from tests.integration.client.running import Ended, pennyweight, rows_of
from tests.integration.client.scripted_scaler import serving

REPLICA = pb.AssumedReplica(source="measured")
HPA = pb.Baseline(name="hpa_rate", title="HPA", course=pb.Course(replica_hours=5.0))


class Trying(scaler_pb2_grpc.ScalerServiceServicer):
    """Tries every file, unless it ends without an answer."""

    answers = True
    reason_needed = False
    problems: tuple[pb.PolicyProblem, ...] = ()

    async def ValidatePolicy(self, request: Any, context: Any) -> pb.ValidatePolicyResponse:  # noqa: N802
        return pb.ValidatePolicyResponse(problems=self.problems)

    async def PlanPolicy(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.PlanPolicyResponse]:
        yield pb.PlanPolicyResponse(progress=0.5)
        if self.answers:
            live, planned = pb.Course(replica_hours=2.0), pb.Course(replica_hours=1.0)
            pool = pb.PoolPlan(pool="large", live=live, planned=planned)
            verdict = pb.PLAN_VERDICT_WORSE if self.reason_needed else pb.PLAN_VERDICT_BETTER
            plan = pb.Plan(verdict=verdict, because="so", pools=[pool])
            plan.reason_needed = self.reason_needed
            yield pb.PlanPolicyResponse(plan=plan)

    async def Simulate(  # noqa: N802
        self, request: Any, context: Any
    ) -> AsyncIterator[pb.SimulateResponse]:
        yield pb.SimulateResponse(progress=0.5)
        if self.answers:
            course = pb.Course(replica_hours=3.0, max_size=4)
            found = pb.Simulation(pool="large", course=course, requests=7, replica=REPLICA)
            found.beside.append(HPA)
            yield pb.SimulateResponse(simulation=found)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "scaling.yaml"
    path.write_text("pools: {}")
    return path


async def asked(servicer: Trying, *words: str) -> Ended:
    async with serving(servicer) as port:
        return await pennyweight("scaler", *words, "--address", f"127.0.0.1:{port}", COLUMNS="120")


async def test_a_plan_is_shown_and_a_worse_one_ends_with_1(file: Path) -> None:
    servicer = Trying()
    ended = await asked(servicer, "plan", str(file))
    assert (ended.code, ended.err) == (0, "")
    rows = [row[:3] for row in rows_of(ended.out)]
    assert ["large", "in force", "2.00"] in rows
    assert ["large", "planned", "1.00"] in rows
    assert "better: so" in ended.out
    page = str(file.with_name("plan.html"))
    ended = await asked(servicer, "plan", str(file), "--html", page)
    assert (ended.code, ended.err) == (0, f"{page} is not written: nothing was tried.\n")
    servicer.reason_needed = True
    ended = await asked(servicer, "plan", str(file), "--json")
    assert ended.code == 1
    assert json.loads(ended.out)["pools"][0]["planned"]["replica_hours"] == 1.0


async def test_what_a_file_would_have_done_with_a_trace_is_shown(file: Path) -> None:
    trace = file.with_name("trace.csv")
    trace.write_text("t_start_s,req_per_s\n0,1\n")
    ended = await asked(Trying(), "simulate", str(file), "--trace", str(trace))
    assert (ended.code, ended.err) == (0, "")
    assert ["large", "3.00"] in [row[:2] for row in rows_of(ended.out)]
    assert "7 requests" in ended.out
    assert "large is tried alone, without budgets and ceilings of money" in ended.out
    ended = await asked(Trying(), "simulate", str(file), "--trace", str(trace), "--json")
    assert (ended.code, ended.err) == (0, "")
    found = json.loads(ended.out)
    assert (found["requests"], found["replica"]["source"]) == (7, "measured")
    assert [one["course"]["replica_hours"] for one in found["beside"]] == [5.0]


@pytest.mark.parametrize("command", ["plan", "simulate"])
async def test_a_trial_without_an_answer_and_a_wrong_file_are_told(
    file: Path, command: str
) -> None:
    words = [command, str(file), *(("--trace", str(file)) if command == "simulate" else ())]
    servicer = Trying()
    servicer.answers = False
    ended = await asked(servicer, *words)
    assert ended.code == 1
    assert ended.err == "The scaler ended the trial without an answer.\n"
    servicer.problems = (pb.PolicyProblem(line=3, key="pools", rule="must be more"),)
    ended = await asked(servicer, *words)
    assert ended.code == 1
    assert "would be refused:" in ended.err
    assert "must be more" in ended.err
