"""What went wrong in our own code, told without the words of whoever called.

The message of an exception may hold a prompt, a schema or a key, and so may the values of local
variables. Its type, and the places it came through, are of our code alone.
"""

import traceback

MOST_PLACES = 20
MOST_LINKS = 8
"""Of a chain of exceptions, or of a group."""


def fault(error: BaseException) -> str:
    """The types and the places of an error, of its causes, and of what a group holds."""
    lines: list[str] = []
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < MOST_LINKS:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        kind = type(one)
        lines.append(f"{kind.__module__}.{kind.__qualname__}")
        places = list(traceback.walk_tb(one.__traceback__))[-MOST_PLACES:]
        lines.extend(
            f"  {frame.f_code.co_filename}:{line} in {frame.f_code.co_qualname}"
            for frame, line in reversed(places)
        )
        if isinstance(one, BaseExceptionGroup):
            waiting.extend(one.exceptions)
        cause = one.__cause__ or (None if one.__suppress_context__ else one.__context__)
        if cause is not None:
            waiting.append(cause)
    return "\n".join(lines)
