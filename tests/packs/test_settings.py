"""What a stranger writes into the open tables of a pack's config: it is refused in a sentence, or the card shows it."""

import json
import shlex
import sys
from contextlib import suppress

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from distill3d.cli import app
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, PackError
from distill3d.packs.card import card_of
from distill3d.packs.config import CONFIG, PackConfig
from distill3d.packs.reader import DEEPEST, LONGEST, MOST
from distill3d.report.page import command_again
from tests.packs.fakehub import validate_card
from tests.packs.small_pack import small_pack
from tests.packs.test_card import REPO, SETTINGS, TOY, parsed

WRITTEN = json.loads(TOY.to_json())


def read(**changes):
    """A pack of these changes, as a stranger's config.json gives it."""
    return PackConfig.from_json(json.dumps({**WRITTEN, **changes}), "somebody/pack")


def nested(depth, value=1):
    """A list in a list in a list."""
    return json.loads("[" * depth + json.dumps(value) + "]" * depth)


def again(card):
    """The commands that repeat the run: one, or none."""
    return [token.content for token in parsed(card) if token.type == "fence" and token.info == "sh"]


# What is refused

HIDDEN = ["\x1b[2J", "\ud800", "a\x00b", "\u2028", "\x85", "x" * (LONGEST + 1)]
VALUES = [
    *HIDDEN,
    float("nan"),
    float("inf"),
    10**400,
    {"\x1b": 1},
    {"a": ["\ud800"]},
    nested(DEEPEST + 1),
    nested(900),
]


def refusal(**changes):
    with pytest.raises(PackError) as refused:
        read(**changes)
    said = str(refused.value)
    assert said.startswith("The config.json of somebody/pack is damaged: ") and said.isprintable() and len(said) < 400
    return said


@pytest.mark.parametrize("table", ["settings", "backbone_options"])
@pytest.mark.parametrize("value", VALUES, ids=range(len(VALUES)))
def test_a_value_that_cannot_be_shown_is_refused(table, value):
    assert f"{table}.odd must be null, true, false, a finite number, text" in refusal(**{table: {"odd": value}})


@pytest.mark.parametrize("table", ["settings", "backbone_options", "versions"])
@pytest.mark.parametrize("name", [*HIDDEN, "two\nlines"], ids=range(len(HIDDEN) + 1))
def test_a_name_that_cannot_be_shown_is_refused(table, name):
    assert f"{table} must be a table of at most 1000 names, each text of one line" in refusal(**{table: {name: "1"}})


@pytest.mark.parametrize("value", [*HIDDEN, "two\nlines", 3, None, ["1"]])
def test_a_version_that_is_no_word_is_refused(value):
    assert "versions.torch must be text of one line" in refusal(versions={"torch": value})


def test_a_metric_whose_name_cannot_be_shown_is_refused():
    assert "metrics.values must be a table of" in refusal(metrics={"protocol": "p", "values": {"\x1b[2J": 1.0}})


def test_tables_and_lists_without_end_are_refused():
    many = {str(i): 1 for i in range(MOST + 1)}
    for table in ("settings", "backbone_options"):
        assert f"at most {MOST} names" in refusal(**{table: many})
        assert f"at most {MOST} values" in refusal(**{table: {"a": list(many), "b": {"c": []}}})
    assert "at most" in refusal(versions=dict.fromkeys(many, "1"))
    assert f"at most {MOST} tables" in refusal(parts=[{"role": "scorer", "name": "", "licence": "MIT"}] * (MOST + 1))


@pytest.mark.parametrize("name", ["style", "schema", "step", "parts", "base"])
def test_what_is_nested_too_deep_to_be_written_out_is_refused_too(name):
    """At a depth that JSON reads and Python cannot repeat."""
    with pytest.raises(PackError):
        read(**{name: nested(sys.getrecursionlimit() - 150)})


def test_who_says_to_have_written_a_newer_pack_does_nothing_to_the_terminal():
    with pytest.raises(PackError, match="Update distill3d") as refused:
        read(schema=2, distill3d="\x1b[2J9")
    assert str(refused.value).isprintable()


# What is taken

FINE = [None, True, False, 0, -1, 2**70, 1e300, "", " ", "word", "a\n\tb", "僵尸 🧟", "\u202e\u200b", "--out", [], {}]
FINE += [5, "x", [1], ["a", 1], {"a": 1}, {"subjects": 5}, {"subjects": "x"}, {"subjects": [None]}, {"": ""}, {"a": {}}]
FINE += [nested(DEEPEST), {"a": [[1]]}, {"a": {"b": {"c": {"d": "e"}}}}, ["|", "`"], {"|": "`"}, "x" * LONGEST]
NAMES = [*SETTINGS, "schema", "of another version", ""]


@pytest.mark.parametrize("value", FINE, ids=range(len(FINE)))
def test_whatever_is_taken_the_card_shows(value):
    """As one setting, and as all of them."""
    for settings in ({**SETTINGS, "options": value}, dict.fromkeys(NAMES, value)):
        config = read(settings=settings, backbone_options={"odd": value})
        assert config.settings == settings
        card = card_of(config, REPO, pictures=True)
        assert validate_card(str(card)) == [] and len(again(card)) <= 1
        assert str(ModelCard(str(card))) == str(card)
        for command in again(card):
            assert shlex.split(command)[:2] == ["distill3d", "run"]


@pytest.mark.parametrize("text", ["", " ", "\u200b", "\u202e", "\ufffe", "---", "null", "ａ/ｂ", "a/b", "x" * LONGEST])
def test_whatever_the_words_of_a_pack_are_the_card_shows_them(text):
    words = dict.fromkeys(("style", "prompt", "negative_prompt", "backbone", "train", "method"), text)
    config = read(
        **words,
        base={**WRITTEN["base"], "weights": text},
        versions={text: text},
        parts=[{"role": text, "name": text, "licence": text}],
        metrics={"protocol": text, "values": {text: 1e300}},
    )
    card = card_of(config, REPO, pictures=True)
    assert validate_card(str(card)) == []
    assert str(ModelCard(str(card))) == str(card)


@pytest.mark.parametrize("name", NAMES)
def test_each_setting_of_any_value_makes_a_run_or_is_refused_and_a_command_or_none(name):
    for value in FINE:
        settings = {**SETTINGS, name: value}
        with suppress(ConfigError):
            DistillConfig.from_json(json.dumps({**settings, "schema": 1}))
        command = command_again(settings)
        assert command is None or shlex.split(command)[:2] == ["distill3d", "run"]


@pytest.mark.parametrize(
    "odd",
    [
        {"options": "x"},
        {"trackers": 5},
        {"controlnets": [1]},
        {"backbone_options": {"subjects": 5}},
        {"options": {"a": {"b": 1}}},
        {"weights": ["a"]},
        {"steps": 0},
        {"of another version": 1},
    ],
)
def test_settings_that_make_no_run_are_shown_and_give_no_command(odd):
    card = card_of(read(settings={**SETTINGS, **odd}), REPO, pictures=False)
    assert again(card) == [] and "Again, by one command" not in card.text
    assert all(
        f"| `{name}` | `{value if isinstance(value, str) else json.dumps(value)}` |" in card.text
        for name, value in odd.items()
    )
    assert len(again(card_of(read(), REPO, pictures=False))) == 1


def test_no_settings_give_no_command():
    assert again(card_of(read(settings={}), REPO, pictures=False)) == []


def test_the_command_card_shows_a_strangers_pack(tmp_path):
    pack = small_pack(tmp_path / "pack")
    values = json.loads((pack.folder / CONFIG).read_text())
    values["settings"] = {**json.loads(DistillConfig(style="zombie").to_json()), "options": "x", "trackers": 5}
    (pack.folder / CONFIG).write_text(json.dumps(values))
    shown = CliRunner().invoke(app, ["card", str(pack.folder)], catch_exceptions=False)
    assert shown.exit_code == 0 and "| `trackers` | `5` |" in shown.output
