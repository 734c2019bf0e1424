"""The looks that were taken at a route's evidence: a file beside its calibration, a line each.

Whatever tests thresholds on evidence is a look, also where another tolerance was tried, or the
result was written elsewhere; `spending` says what each may risk. Looks are counted for the models
that were compared: others are another claim. The count starts anew only where a look has certified
what is asked, and all evidence is younger than that look's: a new calibration as a matter of
course. After failures it does not, however fresh the evidence is, as who tries until it works will
be lucky in the end. The same evidence asked the same again gives the same answer, and is no look.
"""

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from services.common.files import write_whole
from services.router.calibrate.evidence import BadEvidence, Record
from services.router.calibrate.process import Settings
from services.router.routes.artefact import Artefact
from services.router.routes.artefact_file import BadArtefact, read

ROUNDING = 1e-9


@dataclass(frozen=True, slots=True)
class Look:
    """One look.

    Attributes:
        number: from 1; see `spending`.
        ladder: models that were compared, cheapest first, as messages name them.
        asked: digest of the evidence and of everything that was asked.
        since: time of the oldest pair, RFC 3339; empty where pairs carry none.
        until: of the youngest.
        epsilon: most quality that might be lost.
        delta: most probability of a wrong certificate, all looks together.
        certified: thresholds were.
    """

    number: int
    ladder: tuple[str, ...]
    asked: str
    since: str
    until: str
    epsilon: float
    delta: float
    certified: bool = False


def look_of(
    records: Sequence[Record], ladder: Sequence[object], settings: Settings, window: tuple[str, str]
) -> Look:
    """A look at some evidence that has no number yet; `window` is its time, from and to."""
    asked = repr((records, replace(settings, watch=None, look=1)))
    since, until = window
    return Look(
        number=0,
        ladder=tuple(map(str, ladder)),
        asked=hashlib.blake2b(asked.encode(errors="surrogatepass"), digest_size=16).hexdigest(),
        since=since,
        until=until,
        epsilon=settings.epsilon,
        delta=settings.delta,
    )


def numbered(look: Look, before: Sequence[Look]) -> Look:
    """The look with its number; that of an earlier one which was the same."""
    counted: list[Look] = []
    for one in before:
        if one.ladder != look.ladder:
            continue
        if one.asked == look.asked:
            return replace(look, number=one.number)
        counted.append(one)
        if _settles(one, look):
            counted.clear()
    return replace(look, number=max((one.number for one in counted), default=0) + 1)


def _settles(one: Look, look: Look) -> bool:
    """Whether an earlier look certified as much as is asked, on evidence that is all older."""
    as_much = one.epsilon <= look.epsilon + ROUNDING and one.delta <= look.delta + ROUNDING
    until, since = moment(one.until), moment(look.since)
    if until is None or since is None:
        return False
    return one.certified and as_much and until < since


def moment(text: str) -> dt.datetime | None:
    """A time as evidence writes it; None where it is none."""
    try:
        found = dt.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=dt.UTC)


def file_of(artefact: Path) -> Path:
    """Where the looks of a calibration are kept."""
    return artefact.with_suffix(".looks.jsonl")


def looks_in(path: Path, artefact: Path) -> list[Look]:
    """Those of a file, oldest first; without one, that of the calibration beside it, if any.

    Raises:
        BadEvidence: the file cannot be read, so that nobody knows how many there were.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return _looks_of(artefact)
    except (OSError, UnicodeDecodeError) as error:
        raise BadEvidence(f"--route: {path} cannot be read: {error}") from error
    found = []
    for number, line in enumerate(lines, 1):
        try:
            found.append(_look(json.loads(line)))
        except (ValueError, TypeError, KeyError) as error:
            raise BadEvidence(f"--route: {path}, line {number}: no look: {error}") from error
    return found


def keep(path: Path, looks: Sequence[Look]) -> None:
    """Writes the looks that a file is to hold.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(asdict(look)) + "\n" for look in looks)
    write_whole(path, lines.encode())


def _look(line: Any) -> Look:
    look = Look(**{**line, "ladder": tuple(line["ladder"])})
    if not isinstance(look.number, int) or look.number < 1:
        raise ValueError(f"number must be at least 1, got {look.number!r}")
    if not all(isinstance(text, str) for text in (look.asked, look.since, look.until)):
        raise TypeError("asked, since and until must be texts")
    return replace(look, epsilon=float(look.epsilon), delta=float(look.delta))


def _looks_of(path: Path) -> list[Look]:
    """The look that a calibration came from."""
    try:
        artefact: Artefact = read(path)
    except BadArtefact:
        return []
    certificate, data = artefact.certificate, artefact.data
    if not certificate.certified:  # which may mean that there was too little to look at
        return []
    look = Look(
        number=certificate.look,
        ladder=tuple(map(str, artefact.ladder)),
        asked="",
        since=data.since,
        until=data.until,
        epsilon=certificate.epsilon,
        delta=certificate.delta,
        certified=certificate.certified,
    )
    return [look]
