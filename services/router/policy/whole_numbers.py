"""Whole numbers between two bounds as rules of a grammar: one for each count of digits."""

from services.router.policy.grammars import Writer
from services.router.policy.kept import MAX_DIGITS


class WholeNumbers:
    """Writes them, once for each pair of bounds."""

    def __init__(self, writer: Writer) -> None:
        """`writer` takes the rules."""
        self._writer = writer
        self._known: dict[tuple[int, int], str] = {}

    def between(self, low: int, high: int) -> str:
        """The name of a rule for the numbers between two, both included."""
        if (known := self._known.get((low, high))) is not None:
            return known
        bodies = [f'"-" {one}' for one in self._naturals(max(1, -high), -low)]
        bodies += self._naturals(max(0, low), high)
        found = self._writer.choice([self._writer.named(body) for body in bodies])
        self._known[low, high] = found
        return found

    def _naturals(self, low: int, high: int) -> list[str]:
        """Rules for each count of digits between two integers, both included."""
        found = []
        for digits in range(1, MAX_DIGITS + 1):
            first = max(low, 10 ** (digits - 1) if digits > 1 else 0)
            last = min(high, 10**digits - 1)
            if first <= last:
                found.append(self._digits(str(first), str(last)))
        return found

    def _digits(self, low: str, high: str) -> str:
        """A rule for the numbers between two of equally many digits."""
        more = len(low) - 1
        if low.strip("0") == "" and high.strip("9") == "":
            return self._writer.named(f"d{{{more + 1}}}") if more else "d"
        if not more:
            return self._writer.named(f"[{low}-{high}]")
        first, last = int(low[0]), int(high[0])
        if first == last:
            return self._writer.named(f'"{first}" {self._digits(low[1:], high[1:])}')
        bodies = [f'"{first}" {self._digits(low[1:], "9" * more)}']
        if last - first > 1:
            bodies.append(f"[{first + 1}-{last - 1}] d{{{more}}}")
        bodies.append(f'"{last}" {self._digits("0" * more, high[1:])}')
        return self._writer.named(" | ".join(bodies))
