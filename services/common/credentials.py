"""Who calls: API keys, kept as hashes, and the tenant each stands for.

A key is 32 random bytes in text, so one SHA-256 is hash enough: there is nothing to guess. The key
file is YAML::

    keys:
      - {sha256: 3c6e0b…, tenant: acme}
      - {sha256: 8f14e4…, tenant: pennyweight, role: service}
      - {sha256: 1f0e3d…, tenant: acme, role: operator}
      - {sha256: a87ff6…, tenant: acme, critical: true}

Without a key file a service serves loopback only, where the published key `DEVELOPMENT_KEY` is
accepted. A caller with role ``service`` (one of our own services) may act for a tenant by sending
the metadata ``pennyweight-tenant``. One with role ``operator`` calls for its tenant like any
other, may halt and release levers, and may change scaling. Only a service's key, or one with
``critical: true``, may call a request critical.
"""

import hashlib
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import field
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic.dataclasses import dataclass

from services.common.config import (
    STRICT,
    TENANT_PATTERN,
    ConfigError,
    TenantName,
    load_document,
)
from services.common.errors import BadRequest, Forbidden, Unauthenticated, Violation
from services.common.plain_files import MAX_SECRET_BYTES, read_plain
from services.common.rules import spelled

DEVELOPMENT_KEY = "pennyweight-development"
TENANT_METADATA = "pennyweight-tenant"
KEY_ID_DIGITS = 8


class Role(StrEnum):
    """What a key may do; each may do what those before it may."""

    CALLER = "caller"
    OPERATOR = "operator"
    SERVICE = "service"


@dataclass(frozen=True, config=STRICT)
class KeyEntry:
    """One line of the key file: the hash of a key in hex, who holds it, and what it may do."""

    sha256: Annotated[
        str, spelled(r"[0-9a-f]{64}", "must be the SHA-256 of a key, 64 digits and letters a to f")
    ]
    tenant: TenantName
    role: Role = Role.CALLER
    critical: bool = False


@dataclass(frozen=True, config=STRICT)
class KeyFile:
    """The key file."""

    keys: Annotated[tuple[KeyEntry, ...], Field(min_length=1)]

    def __post_init__(self) -> None:
        """Refuses a key that would stand for two tenants."""
        seen: set[str] = set()
        for key in self.keys:
            if key.sha256 in seen:
                raise ValueError(f"the key {key.sha256[:KEY_ID_DIGITS]}… appears twice")
            seen.add(key.sha256)


@dataclass(frozen=True)
class Identity:
    """Who a call is for, and what the caller may do.

    Attributes:
        tenant: who it is for.
        role: what the key may do.
        critical: its requests may be of the highest priority, whatever its role.
        key_id: first digits of the key's hash, by which it is found in the key file.
    """

    tenant: str
    role: Role = Role.CALLER
    critical: bool = False
    key_id: str = field(default="", compare=False)

    @property
    def may_be_critical(self) -> bool:
        """Whether a request of this caller's may be of the highest priority."""
        return self.critical or self.may(Role.SERVICE)

    @property
    def may_operate(self) -> bool:
        """Whether the caller may see and set the levers of all routes."""
        return self.may(Role.OPERATOR)

    @property
    def share(self) -> str:
        """By whom what there is little of is shared out: by tenants, and by keys of operators.

        Operators are often of one tenant, and a service's key acts for any.
        """
        return f"key {self.key_id}" if self.may_operate and self.key_id else self.tenant

    def may(self, role: Role) -> bool:
        """Whether the caller may do what is for this role; services may do all."""
        ranks = tuple(Role)
        return ranks.index(self.role) >= ranks.index(role)

    def require(self, role: Role) -> None:
        """Lets nobody through who may not do what is for this role.

        Raises:
            Forbidden: the caller may not.
        """
        if not self.may(role):
            raise Forbidden(f"only {role}s may do this", reason=f"{role.upper()}S_ONLY")


_VISIBLE = re.compile(r"[!-~]+")
_TENANT = re.compile(TENANT_PATTERN)
_current: ContextVar[Identity] = ContextVar("identity")


def current_identity() -> Identity:
    """Who the running call is for. Only valid inside a call that the server let in."""
    return _current.get()


def set_current_identity(identity: Identity) -> None:
    """Binds the identity to the running call's context."""
    _current.set(identity)


@dataclass(frozen=True)
class Keyring:
    """The accepted keys by the digest of each."""

    by_digest: dict[bytes, Identity] = field(default_factory=dict)
    _shown: dict[str, Identity] = field(default_factory=dict)  # headers that were accepted before

    @classmethod
    def load(cls, path: Path | None) -> "Keyring":
        """Reads the key file; without one, accepts the development key alone.

        Raises:
            ConfigError: the file is wrong.
        """
        if path is None:
            digest = _digest(DEVELOPMENT_KEY)
            key_id = digest.hex()[:KEY_ID_DIGITS]
            return cls({digest: Identity("development", Role.SERVICE, key_id=key_id)})
        return cls(
            {
                bytes.fromhex(entry.sha256): Identity(
                    entry.tenant, entry.role, entry.critical, entry.sha256[:KEY_ID_DIGITS]
                )
                for entry in load_document(path, KeyFile).content.keys
            }
        )

    def identify(self, metadata: Iterable[tuple[str, str | bytes]] | None) -> Identity:
        """Finds out who calls from the call's metadata.

        Raises:
            Unauthenticated: no key, several, or an unknown one.
            Forbidden: a caller's key together with somebody else's tenant.
            BadRequest: a service's key together with what cannot be a tenant, or several tenants.
        """
        metadata = tuple(metadata or ())
        identity = self._holder([value for name, value in metadata if name == "authorization"])
        tenants = [value for name, value in metadata if name == TENANT_METADATA]
        if not tenants or tenants == [identity.tenant]:
            return identity
        if identity.role is not Role.SERVICE:
            raise Forbidden("this key may not act for another tenant", reason="TENANT_FORBIDDEN")
        if len(tenants) > 1:
            raise BadRequest.of(Violation(f"metadata {TENANT_METADATA}", "is sent once"))
        tenant = str(tenants[0])
        if not _TENANT.fullmatch(tenant):
            raise BadRequest.of(
                Violation(f"metadata {TENANT_METADATA}", f"matches {TENANT_PATTERN}")
            )
        return Identity(tenant, Role.SERVICE, key_id=identity.key_id)

    def _holder(self, shown: list[str | bytes]) -> Identity:
        """Whose key the metadata show. Raises `Unauthenticated`."""
        if len(shown) > 1:  # what stands between may go by the first one, or by the last
            raise Unauthenticated(
                "several API keys: send the metadata 'authorization' once", reason="KEY_REPEATED"
            )
        authorization = shown[0] if shown else None
        if not isinstance(authorization, str) or authorization[:7].lower() != "bearer ":
            raise Unauthenticated(
                "no API key: send the metadata 'authorization: Bearer <key>'", reason="KEY_MISSING"
            )
        identity = self._shown.get(authorization)
        if identity is None:
            identity = self.by_digest.get(_digest(authorization[7:]))
            if identity is None:
                raise Unauthenticated("unknown API key", reason="KEY_UNKNOWN")
            self._shown[authorization] = identity
        return identity


def read_key(path: Path | None) -> str:
    """The key that this service shows to others: the file's content, or the development key.

    Raises:
        ConfigError: the file cannot be read, is empty, or holds what no call can carry.
    """
    if path is None:
        return DEVELOPMENT_KEY
    try:
        key = read_plain(path, MAX_SECRET_BYTES).decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"the key cannot be read: {error}"]) from error
    if not key:
        raise ConfigError(str(path), ["the file holds no key"])
    if _VISIBLE.fullmatch(key) is None:
        rule = "must hold one key and nothing else: visible ASCII without blanks"
        raise ConfigError(str(path), [rule])
    return key


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
