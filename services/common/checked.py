"""What is told of a policy file that is checked without a running service: one line of JSON."""

import dataclasses
import json
import sys
from collections.abc import Callable, Mapping

from services.common.config import ConfigError

GOOD, WRONG = 0, 1
"""Exit statuses."""


def tell(check: Callable[[], Mapping[str, object]]) -> int:
    """Checks, prints what is wrong, or what the check found, and returns the exit status."""
    problems: list[dict[str, object]] = []
    source = ""
    found: Mapping[str, object] = {}
    try:
        found = check()
    except ConfigError as error:
        source = error.source
        problems = [dataclasses.asdict(problem) for problem in error.details]
    sys.stdout.write(json.dumps({"source": source, "problems": problems, **found}) + "\n")
    return WRONG if problems else GOOD
