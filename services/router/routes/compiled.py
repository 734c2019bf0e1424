"""A version of the policies as requests travel by it: what can be made beforehand, made once.

A request holds the compiled route that it came under, and with it that version's routes, texts and
first looks; they are gone when nothing holds them any more.
"""

from collections.abc import Collection, Mapping

from services.router.policy.cascade import Cascade, FirstLook, first_look, uses_features
from services.router.policy.difficulty import SparseFeatures
from services.router.policy.routes import Policies, Route, Tier
from services.router.ports import TierText


class CompiledRoute:
    """A route of one version.

    Attributes:
        route: as it was declared.
        policy_version: version of the policies that it is part of.
        uses_features: its calibration predicts from a request's features.
        by_text: a tier for each text that the ladder has, the top tier's text first.
    """

    def __init__(self, route: Route, policy_version: str, texts: Mapping[str, TierText]) -> None:
        """`texts` are by `Tier.tokenizer`, those of the route's ladder at least."""
        self.route = route
        self.policy_version = policy_version
        self.uses_features = uses_features(route)
        self._texts = {tier.name: texts[tier.tokenizer] for tier in route.ladder}
        self._longest: dict[int, int] = {}
        for tier in route.ladder:
            key, most = id(self._texts[tier.name]), tier.max_sequence_tokens
            self._longest[key] = max(self._longest.get(key, 0), most)
        downwards = reversed(route.ladder)
        self.by_text = tuple({id(self._texts[tier.name]): tier for tier in downwards}.values())
        self._looks: dict[frozenset[str], FirstLook] = {}

    def first_look(self, halted: Collection[str]) -> FirstLook:
        """The ladder while these levers are halted; each set is looked at once."""
        names = frozenset(halted)
        look = self._looks.get(names)
        if look is None:
            look = self._looks[names] = first_look(self.route, names)
        return look

    def cascade(self, halted: Collection[str], features: SparseFeatures = ()) -> Cascade:
        """The way of a request up the ladder; see `Cascade`."""
        return Cascade(self.first_look(halted), features)

    def writers(self, halted: Collection[str]) -> tuple[Tier, ...]:
        """Tiers whose stored answers may serve: those that could answer such a request now."""
        return self.first_look(halted).writers

    def text(self, tier: Tier) -> TierText:
        """Text and tokens of a tier of the ladder."""
        return self._texts[tier.name]

    def longest(self, tier: Tier) -> int:
        """Most tokens that a tier of the ladder takes that has the same text as this one."""
        return self._longest[id(self._texts[tier.name])]


class Compiled:
    """A version of the policies.

    Attributes:
        policies: as they were declared.
        routes: compiled, by name.
        texts: of every tier, by `Tier.tokenizer`.
    """

    def __init__(self, policies: Policies, texts: Mapping[str, TierText]) -> None:
        """`texts` are by `Tier.tokenizer`, those of all tiers."""
        self.policies = policies
        self.texts = texts
        self.routes: Mapping[str, CompiledRoute] = {
            name: CompiledRoute(route, policies.version, texts)
            for name, route in policies.routes.items()
        }

    def route(self, name: str) -> CompiledRoute:
        """The route of this name.

        Raises:
            KeyError: there is none.
        """
        return self.routes[name]
