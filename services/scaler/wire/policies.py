"""ValidatePolicy, ApplyPolicy, ListPolicyVersions and RollbackPolicy."""

from collections.abc import Iterator
from functools import partial

import structlog

from pennyweight.scaler.v1 import scaler_pb2 as pb
from services.common.caller_turns import CallerTurns
from services.common.config import ConfigError, Problem
from services.common.credentials import Identity, Role
from services.common.durations import set_time
from services.common.errors import BadRequest, NotFound, Violation
from services.common.notes import MAX_AUTHOR, MAX_REASON, text_violations
from services.scaler.changes.asked import Applied, Asked
from services.scaler.changes.policies import Policies
from services.scaler.history.versions import Source, Version, Versions
from services.scaler.wire.asked import (
    content_violations,
    refuse,
    span_of,
    span_violations,
)
from services.scaler.wire.trials import VERDICTS, plan_message

log = structlog.get_logger()

MOST, USUAL = 1000, 20
HASH_CHARACTERS = 64

_SOURCES = {
    Source.START: pb.POLICY_SOURCE_START,
    Source.FILE: pb.POLICY_SOURCE_FILE,
    Source.APPLY: pb.POLICY_SOURCE_APPLY,
    Source.ROLLBACK: pb.POLICY_SOURCE_ROLLBACK,
    Source.UNDONE: pb.POLICY_SOURCE_UNDONE,
}


class PolicyCalls:
    """The calls about scaling files; see scaler.proto."""

    def __init__(self, policies: Policies, versions: Versions, turns: CallerTurns) -> None:
        """`turns` are those of all long answers."""
        self._turns = turns
        self._policies = policies
        self._versions = versions

    async def validate(
        self, request: pb.ValidatePolicyRequest, identity: Identity
    ) -> pb.ValidatePolicyResponse:
        """Checks a file; what is wrong with it names cores, ports and folders of this machine.

        Raises:
            Forbidden: the caller is no operator.
            BadRequest: it is no file at all.
            ServiceError: see `Trials.run`.
        """
        identity.require(Role.OPERATOR)
        refuse([*content_violations(request.content)])
        try:
            notes = await self._policies.check(request.content, caller=identity.share)
        except ConfigError as error:
            return pb.ValidatePolicyResponse(problems=map(_problem, error.details))
        return pb.ValidatePolicyResponse(notes=map(_problem, notes))

    async def apply(
        self, request: pb.ApplyPolicyRequest, identity: Identity
    ) -> pb.ApplyPolicyResponse:
        """Puts a file in force.

        Raises:
            Forbidden: the caller is no operator.
            ServiceError: see `Policies.apply`.
        """
        identity.require(Role.OPERATOR)
        refuse(
            [
                *content_violations(request.content),
                *text_violations("author", request.author, MAX_AUTHOR),
                *text_violations("note", request.note, MAX_REASON),
                *text_violations(
                    "anyway_reason", request.anyway_reason, MAX_REASON, required=False
                ),
                *_hash_violations(request.based_on),
                *span_violations(request),
            ]
        )
        asked = Asked(
            request.author,
            request.note,
            request.anyway_reason,
            request.based_on,
            span_of(request),
            identity.share,
        )
        applied = await self._policies.apply(request.content, asked)
        _tell("a scaling file was applied", applied, identity, request.author, request.note)
        return pb.ApplyPolicyResponse(
            version=_applied(applied),
            plan=None if applied.plan is None else plan_message(applied.plan),
            in_force=applied.version is not None,
        )

    async def versions(
        self, request: pb.ListPolicyVersionsRequest, identity: Identity
    ) -> pb.ListPolicyVersionsResponse:
        """Lists versions; who made them and what they hold is for operators.

        Raises:
            Forbidden: the caller is no operator and asks for a file.
            BadRequest: with all violations.
            NotFound: there is no such version.
        """
        operator = identity.may_operate
        if not 0 <= request.max_results <= MOST:
            rule = f"must be 0 to {MOST}, got {request.max_results}"
            raise BadRequest.of(Violation("max_results", rule))
        if not request.number:
            found = self._versions.listed(request.max_results or USUAL)
            make = partial(version_message, operator=operator)
            return pb.ListPolicyVersionsResponse(
                versions=await self._turns.made(identity.share, found, make),
                read_only=self._policies.read_only if operator else "",
            )
        identity.require(Role.OPERATOR)
        version = self._versions.find(request.number)
        if version is None:
            message = f"version {request.number} is not on record"
            raise NotFound(message, reason="VERSION_UNKNOWN")
        message_of = version_message(version, operator=True)
        message_of.content = await self._policies.content(version)
        return pb.ListPolicyVersionsResponse(
            versions=[message_of], read_only=self._policies.read_only
        )

    async def roll_back(
        self, request: pb.RollbackPolicyRequest, identity: Identity
    ) -> pb.RollbackPolicyResponse:
        """Takes a change back.

        Raises:
            Forbidden: the caller is no operator.
            ServiceError: see `Policies.roll_back`.
        """
        identity.require(Role.OPERATOR)
        wrong = [*text_violations("author", request.author, MAX_AUTHOR)]
        wrong += text_violations("note", request.note, MAX_REASON, required=False)
        if request.number < 0:
            wrong.append(Violation("number", f"must be 0 or more, got {request.number}"))
        refuse(wrong)
        applied = await self._policies.roll_back(
            request.number, request.author, request.note, caller=identity.share
        )
        _tell("a scaling file was taken back", applied, identity, request.author, request.note)
        return pb.RollbackPolicyResponse(
            version=_applied(applied), in_force=applied.version is not None
        )


def _problem(problem: Problem) -> pb.PolicyProblem:
    return pb.PolicyProblem(
        line=problem.line, key=problem.key, rule=problem.rule, value=problem.value
    )


def version_message(version: Version, *, operator: bool) -> pb.PolicyVersion:
    """A version as a message, without its file."""
    message = pb.PolicyVersion(
        number=version.number,
        hash=version.hash,
        source=_SOURCES[version.source],
        author=version.author if operator else "",
        note=version.note if operator else "",
        anyway_reason=version.anyway if operator else "",
        rolled_back_to=version.rolled_back_to,
        verdict=VERDICTS.get(version.verdict, pb.PLAN_VERDICT_UNSPECIFIED),
        because=version.because if operator else "",
    )
    set_time(message.since, version.since)
    return message


def _hash_violations(text: str) -> Iterator[Violation]:
    if text and not (len(text) == HASH_CHARACTERS and set(text) <= set("0123456789abcdef")):
        yield Violation("based_on", "must be a SHA-256 in hex, 64 digits and letters a to f")


def _applied(applied: Applied) -> pb.PolicyVersion:
    if applied.version is None:
        return pb.PolicyVersion(hash=applied.hash)
    return version_message(applied.version, operator=True)


def _tell(what: str, applied: Applied, identity: Identity, author: str, note: str) -> None:
    log.warning(
        what,
        version=applied.version.number if applied.version is not None else None,
        hash=applied.hash,
        tenant=identity.tenant,
        key=identity.key_id,
        author=author,  # which is what the caller says, and nothing more
        note=note,
    )
