"""One scaling file that somebody sent, checked as the scaler checks its own."""

from collections.abc import Collection
from pathlib import Path

from services.common.config import parse_document
from services.common.files import above
from services.scaler.config import Notes, Scaling, notes
from services.scaler.try_out.new_places import new_places
from services.scaler.try_out.unserved import unserved


def check(
    given: str,
    *,
    path: str,
    cores: Collection[int],
    gpus: Collection[int] | None,
    queries: bool | None,
    live: str | None,
    allowed: Collection[str],
) -> tuple[Notes, str]:
    """Checks a file; returns what is to be said of it, and which tiers it would leave unserved.

    Args:
        given: its text.
        path: of the file that it is to be.
        cores: as in `Scaling.load`; so are `gpus` and `queries`.
        gpus: by index.
        queries: whether somebody answers them.
        live: the text of the file in force, beside whose places it may name none but those that
            are `allowed`; None: it may name any.
        allowed: places.

    Raises:
        ConfigError: it would be refused.
    """
    file = Path(path)
    document = parse_document(given, Scaling, source=path)
    left = ""
    if live is not None:
        # Before any folder that it names is looked at: what there is on the host is no caller's.
        in_force = parse_document(live, Scaling, source=path).content
        document.refuse(new_places(document.content, in_force, above(file), allowed))
        left = unserved(in_force, document.content)
    scaling = Scaling.of(document, file, cores, gpus=gpus, queries=queries)
    return notes(scaling, document, queries=queries), left
