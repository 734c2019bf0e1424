"""Texts that an answer may be, word for word, as rules of a grammar."""

from services.router.policy.grammars import Writer, quoted


def any_text(writer: Writer, texts: list[str]) -> str:
    """Any of some texts, branching where they differ: engines mix up long alternatives."""
    if len(texts) == 1:
        return writer.named(quoted(texts[0])) if texts[0] else '""'
    common = _common(texts)
    by_first: dict[str, list[str]] = {}
    for text in texts:
        rest = text[common:]
        by_first.setdefault(rest[:1], []).append(rest[1:])
    bodies = [
        f"{quoted(first)} {any_text(writer, rests)}" if first else '""'
        for first, rests in by_first.items()
    ]
    chosen = writer.named(" | ".join(bodies))
    return writer.named(f"{quoted(texts[0][:common])} {chosen}") if common else chosen


def _common(texts: list[str]) -> int:
    """Characters that sorted texts begin with alike."""
    first, last = texts[0], texts[-1]
    at = 0
    while at < min(len(first), len(last)) and first[at] == last[at]:
        at += 1
    return at
