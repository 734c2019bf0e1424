"""Loads the texts of models: equal ones once, and no longer than they are needed."""

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from weakref import WeakValueDictionary

from services.common.plain_files import read_plain
from services.router.engines.tokenizer import MAX_TOKENIZER_BYTES
from services.router.ports import TierText

TEMPLATE = "chat_template.jinja"
"""There need be none: the template may stand in the configuration."""

FILES = ("tokenizer.json", "tokenizer_config.json", TEMPLATE)
"""What a text is made of; folders in which these are equal byte for byte have the same text."""


class Texts:
    """Texts that somebody holds, by `Tier.tokenizer`; state of the process.

    Holds none itself: whoever asked for a text owns it. While it lives its folder is not read
    again, so another tokenizer needs another folder.
    """

    def __init__(self, load: Callable[[Path], TierText]) -> None:
        """`load` reads a tokenizer's folder, or raises a `ConfigError`."""
        self._load = load
        self._by_folder: WeakValueDictionary[str, TierText] = WeakValueDictionary()
        self._by_content: WeakValueDictionary[bytes, TierText] = WeakValueDictionary()

    def of(self, folders: Iterable[str]) -> dict[str, TierText]:
        """The texts in these folders; reads those that nobody holds. May run in a thread.

        Raises:
            ConfigError: a tokenizer cannot be used.
        """
        return {folder: self._of(folder) for folder in dict.fromkeys(folders)}

    def _of(self, folder: str) -> TierText:
        if (text := self._by_folder.get(folder)) is not None:
            return text
        content = _content(Path(folder))
        text = self._by_content.get(content) if content is not None else None
        if text is None:
            text = self._load(Path(folder))
            if content is not None:
                self._by_content[content] = text
        self._by_folder[folder] = text
        return text


def _content(folder: Path) -> bytes | None:
    """A hash over the folder's files; None where one cannot be read: whoever loads it says why."""
    digest = hashlib.sha256()
    for name in FILES:
        try:
            data = read_plain(folder / name, MAX_TOKENIZER_BYTES)
        except FileNotFoundError:
            if name != TEMPLATE:
                return None
        except OSError:
            return None
        else:
            digest.update(f"{name} {len(data)}\n".encode())
            digest.update(data)
    return digest.digest()
