"""``key``: makes API keys. The services keep hashes only, so a key is shown once."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from pennyweight.command.ending import USAGE, end
from pennyweight.command.options import Json
from pennyweight.command.show import console, print_json

KEY_BYTES = 32
TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


class Role(StrEnum):
    """What a key may do: call for its tenant, halt levers too, or act for any tenant."""

    CALLER = "caller"
    OPERATOR = "operator"
    SERVICE = "service"


@dataclass(frozen=True)
class Made:
    """A key, and what the key file says of it."""

    key: str
    sha256: str
    tenant: str
    role: str
    critical: bool


def key(
    tenant: Annotated[str, typer.Option(help="Who pays for calls with this key.")],
    role: Annotated[
        Role,
        typer.Option(
            help="`operator` may also set levers and change scaling; `service` is for "
            "Pennyweight's own services."
        ),
    ] = Role.CALLER,
    *,
    critical: Annotated[
        bool, typer.Option("--critical", help="Requests with this key may have priority critical.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Make an API key: the key once, on standard output, and its entry for the key file."""
    if not TENANT.fullmatch(tenant):
        rule = "1 to 63 of a-z, 0-9, _ and -, beginning with a letter or digit"
        end(f"{tenant!r} is no tenant's name.", f"A name has {rule}.", code=USAGE)
    made = secrets.token_urlsafe(KEY_BYTES)
    digest = hashlib.sha256(made.encode()).hexdigest()
    if as_json:
        print_json("key", Made(made, digest, tenant, role.value, critical))
        return
    entry = f'  - {{sha256: "{digest}", tenant: "{tenant}"'  # 123 is a name, and no number
    entry += f", role: {role}" if role is not Role.CALLER else ""
    entry += ", critical: true}" if critical else "}"
    print(made)  # noqa: T201
    aside = console(stderr=True)
    aside.print("\nThe key above is shown this once. Its entry in the key file:\n", style="dim")
    aside.out(f"keys:\n{entry}")
