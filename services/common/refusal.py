"""A changed policy file that is not in force, as those who look after it are told."""

from dataclasses import dataclass

from services.common.config import ConfigError, Problem


@dataclass(frozen=True)
class Refusal:
    """Why what a file says is not in force.

    Attributes:
        file: which file.
        problems: what is wrong with it.
        since: when it was refused first, in seconds since 1970.
    """

    file: str
    problems: tuple[Problem, ...]
    since: float

    @classmethod
    def of(cls, error: ConfigError, before: "Refusal | None", now: float) -> "Refusal":
        """A refusal that goes on from one before, or begins now, in seconds since 1970."""
        return cls(error.source, error.details, now if before is None else before.since)
