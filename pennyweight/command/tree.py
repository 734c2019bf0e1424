"""The source tree, which some commands hand their work to: the package alone cannot do it."""

import sys
from pathlib import Path


def in_the_tree(module: str) -> bool:
    """Whether ``python -m`` would find the module of this name, in this folder first."""
    place = module.replace(".", "/")
    candidates = (f"{place}.py", f"{place}/__main__.py")
    return any(Path(folder, one).is_file() for folder in ("", *sys.path) for one in candidates)
