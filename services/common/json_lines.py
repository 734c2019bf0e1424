"""Lines of JSON that may have to wait in memory."""

import orjson


def json_line(value: object) -> bytes:
    """A value as a line of JSON that takes as much memory as it is long.

    What orjson gives was made with room to spare, which it keeps: 4 KB for a line of 900 bytes.

    Raises:
        TypeError: it has no JSON.
    """
    return bytes(memoryview(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)))
