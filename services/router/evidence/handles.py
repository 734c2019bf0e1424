"""Request handles: names of requests that only we can have given.

``<request id>.<unix seconds>.<code>``, where the code authenticates the rest together with tenant
and route, so that any router with the same secret can check who may speak about a request. The same
secret keys the digests by which a corrected answer is compared with those that were given.
"""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import NamedTuple

from services.common.config import ConfigError
from services.common.plain_files import MAX_SECRET_BYTES, read_plain
from services.router.policy.judging import normalised

CODE_BYTES = 16
DIGEST_BYTES = 16
MIN_SECRET_BYTES = 16


class Named(NamedTuple):
    """What a handle names: a request, and when it was given its handle."""

    request_id: str
    unix_seconds: int


class HandleSigner:
    """Signs and checks handles with one secret."""

    def __init__(self, secret: bytes, *, lasting: bool = True) -> None:
        """`lasting` says that the secret outlives this process, and that other routers share it."""
        self._key = hashlib.sha256(secret).digest()
        self._lasting = lasting

    @classmethod
    def load(cls, path: Path | None) -> "HandleSigner":
        """Reads the secret from a file; without one, a random secret that ends with the process.

        Raises:
            ConfigError: the file cannot be read, or its secret could be guessed.
        """
        if path is None:
            return cls(secrets.token_bytes(32), lasting=False)
        try:
            secret = read_plain(path, MAX_SECRET_BYTES).strip()
        except OSError as error:
            raise ConfigError(str(path), [f"the handle key cannot be read: {error}"]) from error
        if len(secret) < MIN_SECRET_BYTES:
            rule = f"the handle key must have at least {MIN_SECRET_BYTES} bytes"
            raise ConfigError(str(path), [f"{rule}, got {len(secret)}"])
        return cls(secret)

    def sign(self, request_id: str, tenant: str, route: str, unix_seconds: int) -> str:
        """The handle of a request."""
        said = f"{request_id}.{unix_seconds}"
        return f"{said}.{self._code(said, tenant, route)}"

    def verify(self, handle: str, tenant: str, route: str) -> Named | None:
        """What the handle names, or None if it was not given for this tenant and route."""
        said, _, code = handle.rpartition(".")
        if not hmac.compare_digest(code.encode(), self._code(said, tenant, route).encode()):
            return None
        request_id, _, unix_seconds = said.rpartition(".")
        return Named(request_id, int(unix_seconds))

    def digest(self, text: str) -> str:
        """Digest of an answer, the same for all spellings that count as the same answer.

        Whoever lacks the secret can tell which digests are equal, not what they stand for, however
        few answers there may be to guess.
        """
        data = normalised(text).encode(errors="surrogatepass")
        found = hashlib.blake2b(data, key=self._key, digest_size=DIGEST_BYTES, person=b"answer")
        return found.hexdigest()

    def question(self, text: str) -> str:
        """Name of a question, the same for whoever asks it; empty while names would not last."""
        if not self._lasting:
            return ""
        data = normalised(text).encode(errors="surrogatepass")
        found = hashlib.blake2b(data, key=self._key, digest_size=DIGEST_BYTES, person=b"question")
        return found.hexdigest()

    def _code(self, said: str, tenant: str, route: str) -> str:
        message = f"{said}\0{tenant}\0{route}".encode()
        digest = hashlib.blake2b(message, key=self._key, digest_size=CODE_BYTES).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
