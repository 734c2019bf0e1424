"""The policies in force, swapped as a whole, and the texts of the models that they name."""

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping

from services.router.policy.routes import Policies
from services.router.ports import TierText

VERSIONS_KEPT = 3
"""Versions of the policies whose texts stay at hand, the one in force included."""


class InForce:
    """Holds the policies that the next request travels by; one already under way keeps its own."""

    def __init__(self, policies: Policies) -> None:
        self.now = policies

    def adopt(self, policies: Policies) -> None:
        """Puts policies in force. Whoever serves them must know them before."""
        self.now = policies


class Texts(Mapping[str, TierText]):
    """Text and tokens of models, by `Tier.tokenizer`.

    A text stays while the last few versions of the policies name it, or one that a request under
    way still travels by. A folder is read once: another tokenizer needs another folder.
    """

    def __init__(self, load: Callable[[str], TierText]) -> None:
        """`load` reads a tokenizer's folder, or raises a `ConfigError`."""
        self._load = load
        self._texts: dict[str, TierText] = {}
        self._recent: deque[Policies] = deque(maxlen=VERSIONS_KEPT)
        self._older: list[weakref.ref[Policies]] = []

    def __getitem__(self, tokenizer: str) -> TierText:
        return self._texts[tokenizer]

    def __iter__(self) -> Iterator[str]:
        return iter(self._texts)

    def __len__(self) -> int:
        return len(self._texts)

    def load(self, policies: Policies) -> dict[str, TierText]:
        """Reads the texts that policies need and that are not here yet; may run in a thread.

        Raises:
            ConfigError: a tokenizer cannot be used.
        """
        needed = dict.fromkeys(tier.tokenizer for tier in policies.tiers.values())
        return {one: self._load(one) for one in needed if one not in self._texts}

    def adopt(self, policies: Policies, loaded: Mapping[str, TierText]) -> None:
        """Takes the texts that policies need, and lets go of those that nothing needs."""
        self._texts |= loaded
        self._recent.append(policies)
        self._older = [one for one in self._older if one() is not None]
        self._older.append(weakref.ref(policies))
        living = [found for one in self._older if (found := one()) is not None]
        needed = {tier.tokenizer for one in living for tier in one.tiers.values()}
        self._texts = {name: text for name, text in self._texts.items() if name in needed}
