"""Cards of style packs: the Hub takes them, strangers' words stay words, and what they say is so and can be typed."""

import json
import re
import shlex
from dataclasses import replace

import pytest
import torch
import typer
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from distill3d import recipe
from distill3d.cli import app
from distill3d.cli import card as card_command
from distill3d.config import DistillConfig
from distill3d.licences import Part
from distill3d.packs.card import card_of
from distill3d.packs.config import SHEET, TURNTABLE, AdapterInfo, Base, Metrics, PackConfig
from distill3d.packs.hub import push
from distill3d.packs.markdown import block, code, one_line, plain, visible
from distill3d.publish import make_pack
from distill3d.training import loop
from tests.packs.fakehub import validate_card
from tests.photo_runs import a_photo, a_run, photo_toy_is_installed

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
    assert shown == [SHEET, TURNTABLE] and "![" not in without
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


def test_a_part_that_claims_more_than_is_known_of_it_gets_what_is_known():
    card = card_of(replace(HEADS, parts=(Part("backbone", "ffhq512-128", "MIT"),)), REPO, pictures=False)
    assert re.search(
        r"\| backbone \| `ffhq512-128` \| \[NVIDIA [^]]* \(it says MIT\)\]\(https://\S+\) \| no \|", card.text
    )
    assert card.data.license_name == "nvidia-source-code-license-for-eg3d" and "is not open" in card.text


def test_authors_that_must_be_named_are_named_among_what_binds_it():
    free = (Part("backbone", "heads", "CC-BY-4.0"), Part("scorer", "", "MIT"))
    card = card_of(replace(HEADS, parts=free), REPO, pictures=False)
    assert card.data.license == "cc-by-4.0" and "Commercial use is open." in card.text
    assert "- [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/): name its authors" in card.text


# What it tells to type


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run on a backbone that draws its subjects, and one on a backbone that reads photographs."""
    folder = tmp_path_factory.mktemp("runs")
    with photo_toy_is_installed(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(recipe, "Instruments", lambda *_: loop.Instruments())
        patch.setattr(recipe, "write_report", lambda *_, **__: None)
        yield {photos: a_run(folder / name, name) for photos, name in ((False, "toy"), (True, "photo-toy"))}


@pytest.mark.parametrize("photos", [False, True])
def test_the_code_of_a_card_runs(hub, tmp_path, monkeypatch, runs, photos):
    """From the Hub, on a clean cache, in an empty folder; each block of commands, and the block of Python."""
    monkeypatch.setenv("HF_TOKEN", "hf_owner")
    push(make_pack(runs[photos], tmp_path / "pack", repo_id=REPO), REPO)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    a_photo(tmp_path / "here" / "photo.jpg")

    card = ModelCard.load(REPO)
    card.validate()
    blocks = {token.info: token.content for token in parsed(card) if token.type == "fence"}
    for line in blocks["bash"].splitlines():
        program, *arguments = shlex.split(line)
        done = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert (program, done.exit_code) == ("distill3d", 0), done.output
    names = {}
    exec(blocks["python"], names)

    made = {path.name for path in (tmp_path / "here").iterdir()} - {"photo.jpg"}
    assert made == ({"stylised"} if photos else {"pictures", "weaker"})
    assert names["pictures"].shape == ((3, 3, 16, 16) if photos else (2, 3, 3, 16, 16))
    whole, weaker, before = (
        dict(r.named_parameters()) for r in (names["model"], names["weaker"], names["model"].original)
    )
    changed = [n for n in whole if not torch.equal(whole[n], before[n])]
    assert changed and all(torch.equal(weaker[n], torch.lerp(before[n], whole[n], 0.5)) for n in changed)


@pytest.mark.parametrize("photos", [False, True])
def test_what_only_another_pack_could_run_has_options_that_exist(runs, tmp_path, photos):
    card = make_pack(runs[photos], tmp_path / "pack", repo_id=REPO).folder / "README.md"
    group, fences = typer.main.get_command(app), [t for t in parsed(ModelCard.load(card)) if t.type == "fence"]
    lines = [token.content.strip() for token in fences if token.info in ("sh", "shell")]
    assert len(lines) == 2 - photos
    for line in lines:
        program, command, *words = shlex.split(line)
        known = {option for parameter in group.commands[command].params for option in parameter.opts}
        assert program == "distill3d" and {word for word in words if word.startswith("--")} <= known


def test_the_command_that_repeats_a_run_repeats_it(runs, tmp_path, monkeypatch):
    """The same settings: whatever is not said has the same default."""
    pack = make_pack(runs[False], tmp_path / "pack", repo_id=REPO)
    fences = [token for token in parsed(ModelCard.load(pack.folder / "README.md")) if token.type == "fence"]
    (again,) = [shlex.split(token.content) for token in fences if token.info == "sh"]
    configs = []
    monkeypatch.setattr("distill3d.cli.run._distill", lambda config, out: configs.append(config))
    assert CliRunner().invoke(app, again[1:]).exit_code == 0
    assert json.loads(configs[0].to_json()) == pack.content.settings


def preview(*arguments):
    command = typer.Typer()
    command.command()(card_command.card)
    done = CliRunner().invoke(command, [str(word) for word in arguments], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_the_preview_of_a_run_is_the_card_that_it_will_have(runs, tmp_path):
    pack = make_pack(runs[False], tmp_path / "pack", repo_id=REPO)
    written = (pack.folder / "README.md").read_text(encoding="utf-8")
    assert preview(runs[False], "--repo", REPO) == written
    assert preview(pack.folder, "--repo", REPO) == written
    assert "Wrote" in preview(runs[False], "--repo", REPO, "--out", tmp_path / "card.md")
    assert (tmp_path / "card.md").read_text(encoding="utf-8") == written
    assert "user/toy" in preview(runs[False]) and "not exact" in preview(runs[False], "--format", "half")
