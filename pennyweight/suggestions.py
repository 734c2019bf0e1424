"""What a person may have meant by a word that is none."""

from collections.abc import Sequence
from difflib import get_close_matches


def hint_of(word: str, names: Sequence[str], there_are: str = "There are") -> str:
    """The nearest of the names, if one is near, and all of them.

    Args:
        word: that is not among them.
        names: there are.
        there_are: how the list of them begins.
    """
    if not names:
        return f"{there_are} none."
    near = get_close_matches(word, names, n=1)
    question = f"Did you mean {near[0]}? " if near else ""
    return f"{question}{there_are}: {', '.join(names)}."
