"""The pages that people read, and the blocks of code on them."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]

_MARKED = re.compile(r"^# (needs|takes) \S.*$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of code.

    Attributes:
        page: its file, below the root.
        line: where it begins.
        language: what stands after the fence; empty where nothing does.
        text: what it says.
    """

    page: str
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """For people who look for it."""
        return f"{self.page}:{self.line}"

    @property
    def is_marked(self) -> bool:
        """Whether a line of its own says what it needs, or that it takes long: it is not run."""
        return _MARKED.search(self.text) is not None

    def commands(self) -> list[str]:
        """The commands of a block for the shell, each with the lines that go on with it."""
        joined = self.text.replace("\\\n", " ")
        found, open_ = [], ""
        for line in joined.splitlines():
            open_ = f"{open_}\n{line}" if open_ else line
            try:
                words = shlex.split(open_, comments=True)
            except ValueError:  # a quotation that goes on
                continue
            if words:
                found.append(open_)
            open_ = ""
        return found


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in its order."""
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        if token.type == "fence" and token.map is not None:
            name = str(page.relative_to(ROOT))
            yield Block(name, token.map[0] + 1, token.info.strip(), token.content)


BLOCKS = [block for page in PAGES for block in blocks(page)]
