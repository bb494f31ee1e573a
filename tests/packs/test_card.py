"""Cards of style packs: the Hub takes them, strangers' words stay words, and what they say of the pack is so."""

import json
import re
import shlex
from dataclasses import replace

import pytest
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from distill3d.config import DistillConfig
from distill3d.licences import Part
from distill3d.packs.card import card_of
from distill3d.packs.config import AdapterInfo, Base, Metrics, PackConfig
from distill3d.packs.markdown import block, code, one_line, plain, visible
from tests.packs.fakehub import validate_card

REPO = "somebody/zombie-tiny"
SETTINGS = {k: v for k, v in json.loads(DistillConfig(style="zombie", steps=600).to_json()).items() if k != "schema"}
EMBEDDED = tuple(Part(role, "embedded", "Apache-2.0") for role in ("backbone", "scorer", "controlnet depth"))
TOY = PackConfig(
    style="zombie",
    prompt="a zombie, green skin",
    backbone="tiny",
    base=Base("embedded", "ab" * 32),
    adapter=AdapterInfo("full", "cd" * 32, 5_200_000),
    method="ld",
    step=600,
    settings=SETTINGS,
    versions={"python": "3.11.7", "distill3d": "0.1.0"},
    parts=EMBEDDED,
    metrics=Metrics("64 subjects, by the embedded judges", {"style_accuracy": 0.984375, "psnr": 21.5}),
)
HEADS = replace(
    TOY,
    backbone="eg3d",
    base=Base("ffhq512-128", "ab" * 32),
    parts=(
        Part("backbone", "ffhq512-128", "NVIDIA Source Code License for EG3D: research and evaluation only"),
        Part("scorer", "SG161222/Realistic_Vision_V5.1_noVAE", "CreativeML OpenRAIL-M"),
    ),
)
PHOTOS = replace(
    TOY,
    backbone="triposr",
    photos=True,
    base=Base("stabilityai/TripoSR", "ab" * 32),
    parts=(Part("backbone", "stabilityai/TripoSR", "MIT"), Part("scorer", "mine", "unknown")),
    metrics=None,
)
NASTY = [
    "a `zombie` with ``ticks``",
    "one | two || three",
    "---\nlicense: mit\n---\n# Mine",
    "```\n# out of the fence\n```",
    "````````",
    "<script>alert(1)</script> </details> <!-- --> <a@b.org> <https://evil.example>",
    "{{ 7 * 7 }} {% raw %} {# x #} {{ card_data }}",
    "![x](https://evil.example/x.png) [y](javascript:1) [z][1] [^1]",
    "*a* **b** _c_ __d__ ~~e~~ $x^2$ :skull: @somebody www.evil.example https://evil.example",
    "&lt;b&gt; &#x3c;",
    "# heading\n\n- list\n1. list\n> quote\n\n    code\n===\n---",
    "'quotes' \"quotes\" \\ $(rm -rf x) ; # x",
    "right\u202eto left\u0000\u200b\r\nbell\u0007",
    "trailing \\",
    "`",
    "x" * 9000,
    "僵尸 🧟",
]


def everywhere(text):
    """A pack that says it wherever somebody can say something."""
    return replace(
        TOY,
        style=text,
        prompt=text + " ",
        negative_prompt=text,
        backbone=text,
        train=text,
        method=text,
        settings={**SETTINGS, "style": text, "options": {"word": text}},
        versions={text: text},
        parts=(Part(text, text, text), *EMBEDDED),
        metrics=Metrics(text, {text: 1.0}),
    )


def parsed(card):
    """The tokens of a card's body, and of its lines."""
    markdown = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = markdown.parse(card.text)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def shape(tokens):
    return [(token.type, token.tag) for token in tokens if token.type not in ("text", "text_special")]


# What the Hub reads


@pytest.mark.parametrize("pack", [TOY, HEADS, PHOTOS, replace(TOY, parts=(), settings={}, versions={}, metrics=None)])
def test_the_hub_takes_the_card_and_gives_it_back_as_it_was(hub, tmp_path, pack):
    card = card_of(pack, REPO, pictures=True)
    card.validate()
    card.save(tmp_path / "README.md")
    loaded = ModelCard.load(tmp_path / "README.md")
    assert loaded.data.to_dict() == card.data.to_dict()
    assert loaded.text == card.text and str(loaded) == str(card)


def test_the_front_matter_says_what_it_is():
    data = card_of(TOY, REPO, pictures=False).data
    assert data.library_name == "distill3d" and data.pipeline_tag == "unconditional-image-generation"
    assert data.tags[:3] == ["distill3d", "style-pack", "3d"]
    assert {"style:zombie", "backbone:tiny", "score-distillation"} <= set(data.tags)
    assert data.license == "apache-2.0" and data.base_model is None
    found = {(r.metric_type, r.metric_value, r.dataset_name, r.task_type) for r in data.eval_results}
    protocol, task = "64 subjects, by the embedded judges", "unconditional-image-generation"
    assert found == {("style_accuracy", 0.984375, protocol, task), ("psnr", 21.5, protocol, task)}
    assert data.model_name == "zombie-tiny"


def test_a_base_on_the_hub_is_linked_and_photos_are_another_task():
    data = card_of(PHOTOS, REPO, pictures=False).data
    assert (data.base_model, data["base_model_relation"]) == ("stabilityai/TripoSR", "adapter")
    assert data.pipeline_tag == "image-to-3d" and data.eval_results is None
    assert card_of(HEADS, REPO, pictures=False).data.base_model is None  # a name, but none of the Hub


def test_a_research_only_part_makes_a_research_only_pack():
    card = card_of(HEADS, REPO, pictures=False)
    assert card.data.license == "other"
    assert card.data.license_name == "nvidia-source-code-license-for-eg3d-and-creativeml-openrail-m"
    assert card.data.license_link == "https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt"
    assert "for research and evaluation only, since its parts allow no more" in card.text
    assert "Commercial use is not open" in card.text
    assert "research and evaluation only" not in card_of(TOY, REPO, pictures=False).text


# Strangers' words


@pytest.mark.parametrize("text", NASTY)
def test_whatever_somebody_says_the_card_keeps_its_shape(text):
    card, harmless = (card_of(everywhere(said), REPO, pictures=True) for said in (text, "word"))
    assert validate_card(str(card)) == []
    assert ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.data.license == harmless.data.license == "unknown" and card.data.library_name == "distill3d"
    assert shape(parsed(card)) == shape(parsed(harmless))


@pytest.mark.parametrize("text", NASTY)
def test_what_is_read_is_what_was_said(text):
    tokens, said = parsed(card_of(everywhere(text), REPO, pictures=True)), one_line(text)
    heading = next(i for i, token in enumerate(tokens) if token.type == "heading_open")
    assert read(tokens[heading + 1]) == said
    codes = [token.content.strip() for token in tokens if token.type == "code_inline"]
    assert codes.count(said.strip()) >= 4  # backbone, method, train, version, part


def read(inline):
    """An inline token as a reader sees it."""
    return "".join(token.content for token in inline.children)


@pytest.mark.parametrize("text", NASTY)
def test_the_command_that_repeats_the_run_is_the_runs_own_whatever_the_prompt(text):
    fences = [token for token in parsed(card_of(everywhere(text), REPO, pictures=True)) if token.type == "fence"]
    (again,) = [token.content for token in fences if token.info == "sh"]
    words = shlex.split(again)
    assert words[:3] == ["distill3d", "run", "--style"] and words[3] == visible(text)


@pytest.mark.parametrize("text", ["a.b", "no-one's, (really)?", "100 % + 3 = x!"])
def test_harmless_words_are_left_alone(text):
    assert plain(text) == text


def test_code_is_fenced_by_more_ticks_than_it_has():
    assert code("a") == "`a`" and code("a``b") == "```a``b```" and code("`") == "`` ` ``" and code("") == ""
    assert block("a", "sh") == "```sh\na\n```" and block("````", "").startswith("`````\n")


def test_no_place_of_anybodys_disk_and_no_token_is_told():
    """Whoever makes the config leaves places out; the card does not rely on it."""
    places = {
        "weights": "/home/somebody/models/x.pkl",
        "scorer_weights": "~/models/sd",
        "fast": "C:\\Users\\somebody\\taesd",
        "controlnets": {"depth": "/home/somebody/depth"},
        "backbone_options": {"subjects": ["/home/somebody/photos", "\\\\server\\somebody"]},
    }
    text = str(card_of(replace(TOY, settings={**SETTINGS, **places}), "user/zombie", pictures=True))
    assert "somebody" not in text and "models" not in text and "LOCAL" in text


# What it says of the pack


def test_everything_that_made_it_is_on_the_card():
    text = card_of(TOY, REPO, pictures=False).text
    for name, value in SETTINGS.items():
        assert f"| `{name}` | `{value if isinstance(value, str) else json.dumps(value)}` |" in text
    assert "| python | `3.11.7` |" in text and "seed `0`" in text and "600 steps" in text
    assert "ab" * 32 in text and "2411.13536" in text
    for word in ("Misuse", "deception", "harassment", "Biases", "A toy"):
        assert word in text


def test_people_are_spoken_of_where_they_are_shown():
    assert "only people who agreed" in card_of(PHOTOS, REPO, pictures=False).text
    assert "may resemble a real person" in card_of(HEADS, REPO, pictures=False).text
    assert "nobody's" in card_of(TOY, REPO, pictures=False).text
    assert "A toy" not in card_of(PHOTOS, REPO, pictures=False).text + card_of(HEADS, REPO, pictures=False).text


def test_pictures_and_figures_are_shown_only_where_there_are_any():
    with_all, without = card_of(TOY, REPO, pictures=True).text, card_of(PHOTOS, REPO, pictures=False).text
    shown = re.findall(r"!\[[^]]*\]\(([^)]*)\)", with_all)
    assert shown == ["sheet.png", "turntable.webp"] and "![" not in without
    assert "| style accuracy | 0.984 |" in with_all and "64 subjects, by the embedded judges" in with_all
    assert "Figures" not in without


@pytest.mark.parametrize("kind", ["half", "low-rank"])
def test_an_adapter_that_is_not_exact_says_by_how_much(kind):
    said = card_of(replace(TOY, adapter=AdapterInfo(kind, "cd" * 32, 900_000, 0.0123, 0.0045)), REPO, pictures=False)
    assert "0.012" in said.text and "0.0045" in said.text and "not exact" in said.text
    assert "exactly those of the run" in card_of(TOY, REPO, pictures=False).text


@pytest.mark.parametrize(
    ("weights", "said"),
    [
        ("embedded", "nothing to fetch"),
        ("", "not published"),
        ("stabilityai/TripoSR", "https://huggingface.co/stabilityai/TripoSR"),
        ("ffhq512-128", "https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt"),
        ("something", "`something`"),
    ],
)
def test_it_says_which_base_it_needs_and_where_that_is(weights, said):
    assert said in card_of(replace(TOY, base=Base(weights, "ab" * 32)), REPO, pictures=False).text


def test_each_part_stands_there_with_its_licence_and_use():
    text = card_of(HEADS, REPO, pictures=False).text
    assert re.search(r"\| backbone \| `ffhq512-128` \| \[NVIDIA [^]]*\]\(https://\S+\) \| no \|", text)
    assert re.search(r"\| scorer \| `SG161222/\S+` \| \[CreativeML [^]]*\]\(https://\S+\) \| with conditions \|", text)
    assert "| scorer | `mine` | unknown | unknown |" in card_of(PHOTOS, REPO, pictures=False).text
