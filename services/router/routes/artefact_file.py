"""The file that carries a calibration to the routers: JSON, versioned, with a checksum.

Written whole or not at all. Read with every rule checked: a router that takes an artefact knows
that it is complete, unchanged, of this build's features and of the models it serves. Needs nothing
but the standard library.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from services.common.files import write_whole
from services.common.plain_files import read_plain
from services.router.policy.difficulty import FEATURES_VERSION
from services.router.routes.artefact import Artefact
from services.router.routes.artefact_form import FORM, KIND, BadPart, artefact_of, document_of

MAX_BYTES = 256 << 20


class BadArtefact(ValueError):
    """An artefact that must not be used; the message names the file, what is wrong and where."""


def write(path: Path, artefact: Artefact) -> Artefact:
    """Writes an artefact, replacing the file as a whole; returns it with its version filled in."""
    document = document_of(artefact)
    document["version"] = f"{artefact.created}-{_checksum({**document, 'version': ''})[:8]}"
    document["checksum"] = _checksum(document)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_whole(path, text.encode())
    return read(path)


def are_same(one: Artefact, other: Artefact) -> bool:
    """Whether they say the same but for when they were made."""
    bare = (document_of(replace(each, version="", created="")) for each in (one, other))
    first, second = map(_checksum, bare)
    return first == second


def read(path: Path) -> Artefact:
    """Reads an artefact.

    Raises:
        BadArtefact: it cannot be read, is damaged, or is of another form or of other features.
    """
    try:
        data = read_plain(path, MAX_BYTES)
    except OSError as error:
        raise BadArtefact(f"{path}: cannot be read: {error.strerror or error}") from error
    return parse(data, path)


def parse(data: bytes, path: Path) -> Artefact:
    """Takes an artefact apart that was read from `path`.

    Raises:
        BadArtefact: it is damaged, or is of another form or of other features.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadArtefact(f"{path}: no JSON, perhaps cut off: {error}") from error
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise BadArtefact(f"{path}: kind: must be {KIND!r}: this is no calibration")
    _same(path, "form", document.get("form"), FORM)
    _same(path, "features_version", document.get("features_version"), FEATURES_VERSION)
    checksum = document.pop("checksum", None)
    if checksum != _checksum(document):
        raise BadArtefact(f"{path}: checksum: does not match: the file was changed or damaged")
    try:
        return artefact_of(document)
    except BadPart as error:
        raise BadArtefact(f"{path}: {error}") from error


def _same(path: Path, key: str, got: Any, wanted: int) -> None:
    if got != wanted or isinstance(got, bool):
        raise BadArtefact(f"{path}: {key}: this build reads {wanted}, got {got!r}")


def _checksum(document: Mapping[str, Any]) -> str:
    text = json.dumps(document, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
