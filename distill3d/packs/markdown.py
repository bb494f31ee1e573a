"""Words of strangers in a page of markdown: they are shown as they are, and make nothing of the page."""

from __future__ import annotations

import re
import unicodedata

MARKUP = re.compile(r"[\\`*_\[\]<>#|~&$@:]|(?<=www)\.", re.IGNORECASE)  # the last three make links of bare addresses


def one_line(text: str) -> str:
    """Without line breaks, and without characters that cannot be seen or that turn the direction of writing."""
    kept = (" " if c.isspace() else c for c in text if c.isspace() or unicodedata.category(c)[0] != "C")
    return " ".join("".join(kept).split())


def plain(text: str) -> str:
    """In a line that other words begin, or in a cell of a table: what markdown or HTML could read is escaped."""
    return MARKUP.sub(lambda sign: "\\" + sign[0], one_line(text))


def code(text: str) -> str:
    """As code within a line, also within a cell of a table."""
    shown = one_line(text).replace("|", "\\|")
    ticks = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}" if shown else ""


def block(text: str, language: str) -> str:
    """As a block of code; its fence is longer than any in the text."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
