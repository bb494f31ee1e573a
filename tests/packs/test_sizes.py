"""Sizes in words, the same wherever they are told."""

import pytest

from distill3d.cli.pack import describe
from distill3d.packs.sizes import size_in_words


@pytest.mark.parametrize(
    ("size", "words"),
    [(0, "0.0 kB"), (999, "1.0 kB"), (99_999, "100.0 kB"), (100_000, "0.1 MB"), (5_243_000, "5.2 MB")],
)
def test_a_size_is_told_in_the_unit_that_fits(size, words):
    assert size_in_words(size) == words
    assert describe("full", size, 0.0).startswith(f"{words}, full: exactly")
