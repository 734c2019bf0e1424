"""What guides really take, and whose they are: of each step, beyond what it takes without guides.

A trial sees the first tokens of answers at random, and a step that is not slow enough for the watch
may still be many times what a guide may take. So what each guide's tokens take is kept, exactly
where it ran alone, shared with those beside it else; and what each source's guides took beyond what
they may, whoever ended their answers. Between sources `contrast` splits a step, by what steps took
without one of them; this room splits what is a source's among its guides.

State per engine; times are processor time in nanoseconds, `now` is in monotonic seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from engines.cpu.process.contrast import Contrast
from engines.cpu.process.parts import Parts
from engines.cpu.process.sources import Sources
from engines.cpu.process.watch import Blame, Following, Proven
from engines.cpu.suspicion import Suspect, Suspicion

_TOKENS = 16
"""Over about so many tokens go the means."""

_END = 5
"""At so many times what the guides of a step may take, answers are ended."""

_LEAST_STEPS = 3
"""So many steps it takes at least, however slow they are."""

_CLIPPED = _END * _TOKENS / _LEAST_STEPS * 1.1
"""So many times what guides may take does a step count for at most, to the means."""

_SURE = 2
"""At so many times what it may take is a guide refused whose answers are ended when it is alone."""

_NEW = 4
"""So many times as much as others do guides take of a step that are further than ever, unless what
they have taken says otherwise."""

_NO_NEW = 500
_NO_DEAR = 1000
"""So many times what guides may take in a step may those of a source take beyond it, before no new
ones are tried and none run that took more than they may, and before no dear ones run at all."""

_KNOWN = 32
"""So many tokens has a guide made at no cost before it runs for a source that may run none that are
dear: what a trial says of others is not enough then, as it sees no more than a few answers."""

_GUIDES = 4096


@dataclass
class _Guide:
    """What a token takes: `mean` in all steps, `alone` in those that followed no other guide.

    Both tell of the latest tokens, so an answer may begin cheap each time; `most_mean` and
    `most_alone` are what they came to at most.
    """

    mean: float = 0.0
    alone: float = 0.0
    most_mean: float = 0.0
    most_alone: float = 0.0
    struck: int = 0  # how far it was when it was charged
    key: int = 0  # of the latest answer that was, or has come as far since
    ended: bool = False  # whether answers were ended for it, and none has come as far since
    charged: dict[str, float] = field(default_factory=dict)  # beside other sources, to whom


class Account:
    """Keeps the account; `share_ns` is what all guides of a step may take together."""

    def __init__(self, share_ns: int, sources: Sources) -> None:
        """What it finds of `sources` it adds there."""
        self._share_ns = share_ns
        self._sources = sources
        self._guides = Parts[_Guide](_GUIDES)
        self._proven = Proven()
        self._contrast = Contrast(share_ns)
        self.suspicion = Suspicion()

    def token_ns(self, guide: bytes) -> int:
        """What a token takes of a guide that has taken more than it may; 0: of any other.

        One whose answers were ended did so with several answers at once, and takes as much as all
        may together from then on: so one of its answers runs at a time.
        """
        known = self._guides.get(guide)
        if known is None:
            return 0
        most = max(known.most_mean, known.most_alone)
        return int(max(most, self._share_ns)) if known.ended or most > self._share_ns else 0

    def no_new(self, source: str, now: float) -> bool:
        """Whether that source's guides took so much that no new ones are tried for a while."""
        return self._over(source, now) > _NO_NEW * self._share_ns

    def no_dear(self, source: str, guide: bytes, now: float) -> bool:
        """Whether they took so much that this one, which takes much, does not run for a while.

        That is sooner where it has taken more than it may itself.
        """
        most = _NO_NEW if self.token_ns(guide) else _NO_DEAR
        return self._over(source, now) > most * self._share_ns

    def no_unknown(self, source: str, guide: bytes, now: float) -> bool:
        """Whether they took so much that this one has to be known for cheap, and is not."""
        if self._over(source, now) <= _NO_DEAR * self._share_ns:
            return False
        return self._proven.length(guide) < _KNOWN

    def took(self, step_ns: int, following: Sequence[Following], now: float) -> list[Blame]:
        """What follows from a step that took so long beyond one without guides."""
        step_ns = max(0, step_ns)
        self._note(following)
        parts = self._parts(step_ns, following, now)
        answers = Counter((one.source, one.guide) for one in following)
        clip = min(1.0, _CLIPPED * self._share_ns / max(1, step_ns))
        sources = {one.source for one in following}
        self._contrast.learn(step_ns * clip, sources)
        apart = self._contrast.apart(sources)
        self._learn(parts, following, clip, apart)
        if step_ns <= self._share_ns:
            self._prove(following, now)
            return []
        beyond = 1 - self._share_ns / step_ns
        each = {one: part * beyond / answers[one] for one, part in parts.items()}
        self._charge(each, following, now, apart)
        return self._blamed(following, now) if step_ns > _END * self._share_ns else []

    def _parts(
        self, step_ns: int, following: Sequence[Following], now: float
    ) -> dict[tuple[str, bytes], float]:
        """How much of a step is due to each source's guides, as far as that can be told.

        Only what was measured counts between sources, and whose guides are new: a guess at what was
        theirs before would make the next guess.
        """
        new = self._proven.new(following)
        guesses: dict[str, float] = {}
        weights: dict[str, dict[bytes, float]] = {}
        for one in following:
            mean = self._of(one.guide).mean
            times = _NEW if one.guide in new else 1
            weights.setdefault(one.source, {})[one.guide] = (1 + mean / self._share_ns) * times
            alone = self._sources.of(one.source, now).alone_ns
            guess = (1 + alone / self._share_ns / _TOKENS) * times
            guesses[one.source] = guesses.get(one.source, 0.0) + guess
        parts: dict[tuple[str, bytes], float] = {}
        for source, part in self._contrast.split(step_ns, guesses).items():
            total = sum(weights[source].values())
            for guide, weight in weights[source].items():
                parts[source, guide] = part * weight / total
        return parts

    def _learn(
        self,
        parts: dict[tuple[str, bytes], float],
        following: Sequence[Following],
        clip: float,
        apart: str | None,
    ) -> None:
        told = {one.guide for one in following if one.source == apart}
        answers = Counter(one.guide for one in following)
        taken = dict.fromkeys(answers, 0.0)
        for (_, guide), part in parts.items():
            taken[guide] += part * clip / answers[guide]
        for guide, each_ns in taken.items():
            known = self._of(guide)
            known.mean += (each_ns - known.mean) / _TOKENS
            if len(taken) == 1:
                known.alone += (each_ns - known.alone) / _TOKENS
                known.most_alone = max(known.most_alone, known.alone)
            elif guide in told:
                known.most_alone = max(known.most_alone, known.mean)
            else:
                known.most_mean = max(known.most_mean, known.mean)

    def _prove(self, following: Sequence[Following], now: float) -> None:
        self._proven.prove(following)
        for one in following:
            known = self._of(one.guide)
            if not 0 < known.key < one.key or one.length < known.struck:
                continue
            # A later answer has come as far at no cost: it was another guide that took it, or took
            # another way, or something went wrong once.
            for source, charged in known.charged.items():
                self._sources.add(source, now, taken=-charged)
            known.charged.clear()
            known.most_mean = 0.0
            known.ended = False
            if not self.no_new(one.source, now):
                known.most_alone /= 2
            known.key = one.key

    def _charge(
        self,
        each: dict[tuple[str, bytes], float],
        following: Sequence[Following],
        now: float,
        apart: str | None,
    ) -> None:
        company = len({source for source, _ in each}) > 1
        alone = len({guide for _, guide in each}) == 1
        for one in following:
            known = self._of(one.guide)
            charge = each[one.source, one.guide]
            self._sources.add(one.source, now, taken=charge, alone=0.0 if company else charge)
            known.struck = max(known.struck, one.length)
            known.key = max(known.key, one.key)
            if alone:
                self._proven.disprove(one)
                continue
            if company and one.source != apart:
                known.charged[one.source] = known.charged.get(one.source, 0.0) + charge

    def _blamed(self, following: Sequence[Following], now: float) -> list[Blame]:
        guides = {one.guide for one in following}
        most = _END * self._share_ns
        if len(guides) == 1:
            alone = self._of(following[0].guide).alone
            if alone * len(following) <= most:
                return []
            if alone > _SURE * self._share_ns:
                return [Blame(following[0].guide, certain=True)]
        elif sum(self._of(one.guide).mean for one in following) <= most:
            return []
        taken: dict[str, float] = {}
        for one in sorted(following):
            mean = self._of(one.guide).mean
            taken[one.source] = taken.pop(one.source, 0.0) + mean
        # Of those that are alike the latest to come: steps were fast before it did.
        worst = max(reversed(taken), key=taken.__getitem__)
        theirs = {one.guide for one in following if one.source == worst}
        dearest = max(self._of(guide).mean for guide in theirs)
        ended = {guide for guide in theirs if self._of(guide).mean >= dearest / 2}
        dear = (one for one in following if self._of(one.guide).mean > self._share_ns)
        suspects = frozenset(Suspect(one.source, one.guide) for one in dear)
        self.suspicion.accuse(suspects, {one.source for one in following}, now)
        for guide in ended:
            self._of(guide).ended = True
        return [Blame(guide, certain=False) for guide in sorted(ended)]

    def _note(self, following: Sequence[Following]) -> None:
        """Keep account of these: who brings many guides has its own forgotten first."""
        for one in following:
            if self._guides.use(one.guide, one.source) is None:
                self._guides.put(one.guide, one.source, _Guide())

    def _of(self, guide: bytes) -> _Guide:
        """One of those that the step followed."""
        return self._guides.get(guide) or _Guide()

    def _over(self, source: str, now: float) -> float:
        return self._sources.of(source, now).taken_ns
