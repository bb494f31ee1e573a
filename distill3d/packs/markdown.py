"""Words of strangers in a page of markdown: they are shown as they are, and make nothing of the page."""

from __future__ import annotations

import re
import unicodedata

MARKUP = re.compile(r"[\\`*_\[\]<>#|~&$@:]|(?<=www)\.", re.IGNORECASE)  # the last three make links of bare addresses


def visible(text: str) -> str:
    """Without characters that cannot be seen or that turn the direction of writing; lines end as lines do."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n")
    return "".join(c for c in lines if c in "\n\t" or unicodedata.category(c)[0] != "C")


def one_line(text: str) -> str:
    """What can be seen of it, in one line."""
    return " ".join(visible(text).split())


def plain(text: str) -> str:
    """In a line that other words begin, or in a cell of a table: what markdown or HTML could read is escaped."""
    return MARKUP.sub(lambda sign: "\\" + sign[0], one_line(text))


def code(text: str) -> str:
    """As code within a line."""
    shown = one_line(text)
    ticks = "`" * (_longest_run(shown) + 1)
    space = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{space}{shown}{space}{ticks}" if shown else ""


def code_cell(text: str) -> str:
    """As code in a cell of a table, which a bar would end even there."""
    return code(text).replace("|", "\\|")


def block(text: str, language: str) -> str:
    """As a block of code; its fence is longer than any in the text."""
    shown = visible(text)
    fence = "`" * max(3, _longest_run(shown) + 1)
    return f"{fence}{language}\n{shown}\n{fence}"


def _longest_run(text: str) -> int:
    """Of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)
