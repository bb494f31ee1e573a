"""Styles are words, and view words name the side that a camera sees."""

import dataclasses

import pytest

from distill3d.styles import CATALOGUE, Style, view_word, with_view_words


@pytest.mark.parametrize(
    ("yaw", "word"),
    [
        (0, "front"),
        (45, "front"),
        (45.01, "side"),
        (90, "side"),
        (135, "side"),
        (135.01, "back"),
        (180, "back"),
    ],
)
def test_the_side_changes_at_45_and_135_degrees(yaw, word):
    for turns in (-720, -360, 0, 360, 3600):  # a camera is where it is however often it went around
        assert view_word(yaw + turns) == word
        assert view_word(-yaw + turns) == word


def test_every_direction_is_one_of_three_sides_front_and_back_a_quarter_each():
    words = [view_word(yaw + 0.5) for yaw in range(-180, 180)]
    assert [words.count(w) for w in ("front", "side", "back")] == [90, 180, 90]


def test_a_wide_range_of_views_names_the_side():
    for yaw, side in ((0, "front"), (-100, "side"), (170, "back"), (190, "back"), (359, "front")):
        assert with_view_words("Portrait of a zombie", yaw, 180) == f"{side} view of Portrait of a zombie"


@pytest.mark.parametrize("yaw", [0, 50, 180])
@pytest.mark.parametrize("yaw_range", [0, 30, 60])
def test_while_all_cameras_see_the_face_the_prompt_is_unchanged(yaw, yaw_range):
    """The range decides, not the one view: all views of a run are told the same way."""
    assert with_view_words("Portrait of a zombie", yaw, yaw_range) == "Portrait of a zombie"


def test_just_beyond_the_face_the_front_is_named_too():
    assert with_view_words("a cat", 0, 60.1) == "front view of a cat"


@pytest.mark.parametrize("yaw", [0, 90, 180])
def test_the_empty_prompt_stays_empty(yaw):
    assert with_view_words("", yaw, 180) == ""


def test_the_catalogue_has_the_prompts_of_the_method():
    """The werewolf's is the released script's own; the others are written in its form."""
    assert {name: style.prompt for name, style in CATALOGUE.items()} == {
        "joker": "Portrait of the Joker",
        "pixar": "Portrait of a person in Pixar style",
        "sketch": "Pencil sketch portrait",
        "statue": "Portrait of a marble statue",
        "werewolf": "Portrait of a werewolf",
        "zombie": "Portrait of a zombie",
    }
    assert {style.negative_prompt for style in CATALOGUE.values()} == {""}


def test_names_are_single_lower_case_words_under_which_their_style_is_found():
    for name, style in CATALOGUE.items():
        assert style.name == name == name.lower().strip()
        assert name.isalpha()
    assert list(CATALOGUE) == sorted(CATALOGUE)  # the order in which they are listed


def test_a_style_is_a_value():
    assert Style("a", "b") == Style("a", "b", "") != Style("a", "b", "c")
    with pytest.raises(dataclasses.FrozenInstanceError):
        Style("a", "b").prompt = "c"
