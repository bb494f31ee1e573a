"""Bytes, as people say them."""

from __future__ import annotations


def size_in_words(size: int) -> str:
    """As "5.2 MB" or "31.4 kB", of a thousand each, as the Hub counts them."""
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"
