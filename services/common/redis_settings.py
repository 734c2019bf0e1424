"""Where a Redis is and how a service gets in, checked: address, password file, CA, time.

What is wrong is said under the name of the environment variable it came from, with rule and value.
A password never shows: not even one that stands in the address, where it may not.
"""

import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

from services.common.config import ConfigError
from services.common.plain_files import MAX_SECRET_BYTES, read_plain
from services.common.redis_link import RedisLink

TLS_SCHEME = "rediss"
LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class RedisSettings:
    """The settings of a service that say where its Redis is.

    Attributes:
        prefix: of the service's environment variables.
        setting: the one that holds the address, in lower case and without the prefix.
        instead: the word that may stand there for no Redis at all.
        address: ``redis://[user@]host[:port][/database]``, or ``rediss://…`` for TLS.
        password_file: file with the password; None, there is none.
        ca_file: PEM bundle that signed the certificate of Redis; None, the system's.
        timeout_seconds: longest that an operation may take.
    """

    prefix: str
    setting: str
    instead: str
    address: str
    password_file: Path | None
    ca_file: Path | None
    timeout_seconds: float

    @property
    def is_here(self) -> bool:
        """Whether it is on this machine alone, by its address."""
        url = _parts(self.address)
        return url is not None and url.hostname in LOOPBACK_HOSTS

    def check(self) -> None:
        """Checks what can be checked without reading files.

        Raises:
            ConfigError: the address is none, holds a password, or does not go with the CA.
        """
        if (rule := self._broken_rule()) is not None:
            raise self._wrong(self.setting, f"{rule}, got {_without_password(self.address)!r}")
        if self.ca_file is not None and urlsplit(self.address).scheme != TLS_SCHEME:
            rule = f"needs a rediss:// address in {self._variable(self.setting)}"
            raise self._wrong("redis_ca_file", f"{rule}, got {str(self.ca_file)!r}")

    def link(self, connections: int) -> RedisLink:
        """A link that does not connect yet, with at most so many connections.

        Raises:
            ConfigError: as `check` does, or a file cannot be used.
        """
        self.check()
        if self.ca_file is not None:
            try:
                authority = read_plain(self.ca_file, MAX_SECRET_BYTES).decode("ascii", "replace")
                ssl.create_default_context(cadata=authority)
            except (OSError, ValueError) as error:  # also what is no certificate
                raise self._unusable("redis_ca_file", self.ca_file, _why(error)) from error
        return RedisLink(
            self.address,
            password=self._password if self.password_file is not None else None,
            ca_file=self.ca_file,
            timeout_seconds=self.timeout_seconds,
            connections=connections,
        )

    def _broken_rule(self) -> str | None:
        """The rule that the address breaks; None where it is one."""
        shape = f"must be {self.instead}, redis://host:port or rediss://host:port"
        url = _parts(self.address)
        if url is None:
            return shape
        if url.password:
            return f"must hold no password: put it into {self._variable('redis_password_file')}"
        if not url.hostname or url.query or url.fragment:
            return shape
        if not _has_port(url):
            return "must have a port from 1 to 65535"
        if not re.fullmatch(r"(/[0-9]*)?", url.path):
            return "must end in nothing else than /number of a database"
        return None

    def _password(self) -> str:
        """What is in the file now.

        Raises:
            ConfigError: it cannot be read.
        """
        path = self.password_file
        assert path is not None  # noqa: S101 -- nobody asks without one
        try:
            return read_plain(path, MAX_SECRET_BYTES).decode("utf-8").strip()
        except OSError as error:
            raise self._unusable("redis_password_file", path, _why(error)) from error
        except UnicodeDecodeError:  # not its cause: that holds what was read
            why = "it is not UTF-8"
        raise self._unusable("redis_password_file", path, why)

    def _unusable(self, setting: str, path: Path, why: str) -> ConfigError:
        return self._wrong(setting, f"cannot be read: {why}, got {str(path)!r}")

    def _wrong(self, setting: str, what: str) -> ConfigError:
        return ConfigError("environment", [f"{self._variable(setting)}: {what}"])

    def _variable(self, setting: str) -> str:
        return f"{self.prefix}{setting.upper()}"


def _why(error: OSError | ValueError) -> str:
    """What an error says, without the name of the file."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _parts(address: str) -> SplitResult | None:
    """The parts of an address; None where it has another scheme or cannot be taken apart."""
    # `urlsplit` passes over white space, and takes other letters for the same scheme.
    if not re.match("rediss?://", address) or re.search(r"\s", address):
        return None
    try:
        return urlsplit(address)
    except ValueError:  # brackets that hold no IPv6 address
        return None


def _has_port(url: SplitResult) -> bool:
    """Whether the port is one, or left out."""
    try:
        return url.port != 0
    except ValueError:
        return False


def _without_password(address: str) -> str:
    """An address for people: without all that may be, or belong to, a password."""
    scheme, mark, rest = address.partition("://")
    if not scheme.isalpha():
        scheme, mark, rest = "", "", address
    user, at, place = rest.rpartition("@")
    if re.search(r"[?#]", user):  # nobody can tell to which of them the rest belongs
        return f"{scheme}{mark}…"
    return f"{scheme}{mark}{'…@' if at else ''}{re.sub(r'(?s)[?#].*', '…', place)}"
