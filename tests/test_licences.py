"""Whose weights a run was made with, what they may be used for, and what is made of that."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from distill3d import preparation
from distill3d.cli.licences import licences
from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError
from distill3d.licences import (
    LICENCES,
    MODELS,
    UNKNOWN,
    Part,
    check_commercial,
    commercial_use,
    is_open,
    known_licence,
    licence_of,
    licence_of_model,
    not_open,
    pack_licence,
    parts_of_metric,
    parts_of_run,
    parts_to_json,
    source_of,
    verdict,
)
from distill3d.plugins import Offer, registry
from distill3d.recipe import distill, prepare, resume
from distill3d.scorers import diffusers as diffusers_module
from distill3d.scorers.diffusers import load_diffusers, load_tiny
from tests.faults.children import bare
from tests.packs.fakehub.cards import LICENCES as ON_HUB
from tests.packs.fakehub.cards import validate_card
from tests.packs.small_pack import small_pack
from tests.toys import load_toy

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "distill3d" / "tiny" / "weights" / "diffusion"
EG3D = "NVIDIA Source Code License for EG3D: research and evaluation only"
JUDGES = Part("metric judges", "embedded", "Apache-2.0")
FACE = Part("metric face", "buffalo_l", licence_of_model("buffalo_l"))
CONFIG = DistillConfig(style="zombie", backbone="free", scorer="tiny", method="sds", steps=1, probe=0)


def parts(*texts):
    roles = ("backbone", "scorer", "controlnet depth", "autoencoder")
    return tuple(Part(role, "", text) for role, text in zip(roles, texts))


# The tables


def test_what_is_said_of_each_licence_has_a_source_and_the_hubs_identifiers_are_the_hubs():
    for known in LICENCES.values():
        assert known.source.startswith("https://") and known.says, known.id
        assert (known.id in ON_HUB) == known.on_hub, known.id
        for text in (known.id, known.name, known.name.upper(), *known.spellings):
            assert known_licence(text) is known, text
        assert set(known.includes) <= LICENCES.keys()


def test_each_known_model_has_a_known_licence_and_a_source():
    for name, model in MODELS.items():
        assert model.licence in LICENCES and model.source.startswith("https://"), name
        assert known_licence(licence_of_model(name)).id == model.licence
        assert source_of(Part("scorer", name, licence_of_model(name))) == model.source


def test_the_licences_that_the_plugins_name_are_known():
    eg3d, lrm = pytest.importorskip("distill3d_eg3d.known"), pytest.importorskip("distill3d_lrm.loading")
    for name, checkpoint in eg3d.CHECKPOINTS.items():
        assert known_licence(checkpoint.licence).commercial == "no"
        assert known_licence(checkpoint.licence).id == MODELS[name].licence
    for kind in lrm.KINDS.values():
        assert known_licence(kind.published.licence).id == MODELS[kind.published.repo].licence


def test_the_page_shows_the_tables():
    page = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
    for known in LICENCES.values():
        assert f"[{known.name}]({known.source}) | {known.commercial} | {known.says} |" in page
    for model in MODELS.values():
        assert f"| `{model.name}` | `{model.licence}` | <{model.source}> |" in page


@pytest.mark.parametrize("text", ["", "unknown", "a licence of mine", "apache", "non-commercial mit", "MIT or not"])
def test_a_licence_that_is_none_of_those_is_unknown(text):
    assert known_licence(text) is UNKNOWN
    assert source_of(Part("scorer", "somebody/something", text)) == ""


def test_a_part_that_says_unknown_stays_unknown_whatever_its_name():
    part = Part("scorer", "madebyollin/taesd", "unknown")
    assert commercial_use([part]) == "unknown" and source_of(part) == ""


# What several allow


@pytest.mark.parametrize(
    ("texts", "together"),
    [
        (("MIT", "Apache-2.0"), "yes"),
        (("MIT", "CreativeML OpenRAIL-M", "OpenRAIL"), "with conditions"),
        (("MIT", "CreativeML OpenRAIL-M", "unknown"), "unknown"),
        (("MIT", "no such"), "unknown"),
        ((EG3D, "unknown"), "no"),
        (("CC-BY-NC-4.0", "CreativeML OpenRAIL-M"), "no"),
        ((), "unknown"),
    ],
)
def test_the_strictest_counts_and_unknown_is_not_yes(texts, together):
    assert commercial_use(parts(*texts)) == together
    expected = together in ("yes", "with conditions")
    assert is_open(parts(*texts)) == verdict(parts(*texts)).startswith("Commercial use is open") == expected
    assert (not not_open(parts(*texts))) == (expected or not texts)
    if expected:
        check_commercial(parts(*texts))
    else:
        with pytest.raises(ConfigError, match="--commercial-ok was asked for"):
            check_commercial(parts(*texts))


def test_a_run_that_noted_no_parts_is_refused_with_what_to_do():
    with pytest.raises(ConfigError, match=r"nobody noted whose weights it was made with.*Leave it out, or take"):
        check_commercial(())


def test_the_verdict_names_what_closes_it_and_the_conditions_that_open_it():
    closed = verdict((Part("backbone", "ffhq512-128", EG3D), Part("scorer", "", "unknown"), Part("x", "", "MIT")))
    assert "backbone ffhq512-128 is under NVIDIA Source Code License for EG3D" in closed
    assert "licence of the scorer is unknown" in closed and "MIT" not in closed
    opened = verdict(parts("MIT", "CreativeML OpenRAIL-M"))
    assert "CreativeML OpenRAIL-M" in opened and "attachment A" in opened


@pytest.mark.parametrize(
    ("texts", "licence", "name"),
    [
        (("Apache-2.0", "Apache-2.0"), "apache-2.0", None),
        (("MIT", "Apache-2.0"), "apache-2.0", None),
        (("MIT", "MIT"), "mit", None),
        (("MIT", "CreativeML OpenRAIL-M", "OpenRAIL", "MIT"), "creativeml-openrail-m", None),
        (("MIT", "OpenRAIL"), "openrail", None),
        (("CC-BY-4.0", "MIT"), "cc-by-4.0", None),
        (("CC-BY-4.0", "OpenRAIL"), "other", "openrail-and-cc-by-4.0"),
        (("CC0-1.0", "BSD-2-Clause"), "bsd-2-clause", None),
        (("CC-BY-NC-4.0", "Apache-2.0"), "cc-by-nc-4.0", None),
        (("CC-BY-NC-4.0", "CreativeML OpenRAIL-M"), "other", "cc-by-nc-4.0-and-creativeml-openrail-m"),
        ((EG3D, "Apache-2.0"), "other", "nvidia-source-code-license-for-eg3d"),
        ((EG3D, "openrail++"), "other", "nvidia-source-code-license-for-eg3d-and-openrail-plus-plus"),
        ((EG3D, "unknown"), "other", "nvidia-source-code-license-for-eg3d-and-unknown"),
        (("MIT", "unknown"), "unknown", None),
        ((), "unknown", None),
    ],
)
def test_a_packs_licence_follows_from_what_binds_its_parts(texts, licence, name):
    pack = pack_licence(parts(*texts))
    assert (pack.license, pack.license_name) == (licence, name)
    assert (pack.license_link is None) == (licence != "other")
    front = {"license": pack.license, "license_name": pack.license_name, "license_link": pack.license_link}
    lines = "\n".join(f"{key}: {value}" for key, value in front.items() if value)
    assert validate_card(f"---\n{lines}\n---\n") == []


def test_naming_authors_binds_a_pack_and_leaves_commercial_use_open():
    said = parts("CC-BY-4.0", "MIT")
    assert [licence.says for licence in pack_licence(said).binding] == ["name its authors"]
    assert commercial_use(said) == "yes" and verdict(said) == "Commercial use is open."


@pytest.mark.parametrize(
    ("name", "said", "counts"),
    [
        ("ffhq512-128", "MIT", "nvidia-source-code-license-for-eg3d"),
        ("ffhq512-128", "unknown", "nvidia-source-code-license-for-eg3d"),
        ("ffhq512-128", "CC-BY-NC-4.0", "nvidia-source-code-license-for-eg3d"),
        ("SG161222/Realistic_Vision_V5.1_noVAE", "Apache-2.0", "creativeml-openrail-m"),
        ("stabilityai/TripoSR", "Apache-2.0", "mit"),
        ("stabilityai/TripoSR", "CC-BY-4.0", "cc-by-4.0"),
        ("stabilityai/TripoSR", "CC-BY-NC-4.0", "cc-by-nc-4.0"),
        ("stabilityai/TripoSR", "something", "unknown"),
        ("nobody/knows", "MIT", "mit"),
    ],
)
def test_of_what_a_part_says_and_what_is_known_of_it_the_stricter_counts(name, said, counts):
    part = Part("backbone", name, said)
    assert licence_of(part).id == counts
    assert [licence.id for licence in pack_licence([part]).binding] == [counts]
    assert commercial_use([part]) == licence_of(part).commercial
    model = MODELS.get(name)
    assert source_of(part) == (model.source if model and model.licence == counts else licence_of(part).source)


def test_a_part_that_claims_more_than_is_known_of_it_is_told_so():
    part = Part("backbone", "ffhq512-128", "MIT")
    told = "the backbone ffhq512-128 is under NVIDIA Source Code License for EG3D (it says MIT)"
    assert told in verdict([part])
    with pytest.raises(ConfigError, match=r"\(it says MIT\), see https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt"):
        check_commercial([part])
    assert "it says" not in verdict([replace(part, licence=EG3D)]) + verdict([replace(part, licence="unknown")])


def test_what_only_measured_binds_no_pack_but_closes_commercial_use():
    measured = (*parts("MIT", "MIT"), Part("metric face", "buffalo_l", licence_of_model("buffalo_l")))
    assert pack_licence(measured).license == "mit"
    assert commercial_use(measured) == "no"


# What a run notes


def test_the_embedded_scorer_says_that_it_and_its_controlnets_are_free():
    scorer = load_tiny()
    assert [part.role for part in scorer.parts] == ["scorer", "controlnet depth", "controlnet canny"]
    assert {(part.name, part.licence) for part in scorer.parts} == {("embedded", "Apache-2.0")}


def test_another_folder_for_the_embedded_scorer_is_of_an_unknown_licence(tmp_path):
    (tmp_path / "mine").symlink_to(EMBEDDED)
    assert commercial_use(load_tiny(str(tmp_path / "mine")).parts) == "unknown"


@pytest.fixture
def _mirrored(monkeypatch):
    """The Hub has these models: the embedded ones under other names."""
    load = diffusers_module.load_part
    places = {
        "SG161222/Realistic_Vision_V5.1_noVAE": EMBEDDED,
        "somebody/else": EMBEDDED,
        "lllyasviel/sd-controlnet-depth": EMBEDDED / "controlnet",
        "lllyasviel/sd-controlnet-canny": EMBEDDED / "controlnet-canny",
    }
    fake = lambda kind, source, *given: load(kind, str(places.get(source, source)), *given)  # noqa: E731
    monkeypatch.setattr(diffusers_module, "load_part", fake)
    monkeypatch.setattr(diffusers_module, "known_words", lambda source: None)


@pytest.mark.usefixtures("_mirrored")
def test_a_diffusers_scorer_tells_its_model_and_controlnets_by_their_ids():
    assert [(p.role, p.name, known_licence(p.licence).id) for p in load_diffusers().parts] == [
        ("scorer", "SG161222/Realistic_Vision_V5.1_noVAE", "creativeml-openrail-m"),
        ("controlnet canny", "lllyasviel/sd-controlnet-canny", "openrail"),
        ("controlnet depth", "lllyasviel/sd-controlnet-depth", "openrail"),
    ]
    other = load_diffusers("somebody/else", controlnets={"depth": "lllyasviel/sd-controlnet-depth"})
    assert [(p.name, p.licence) for p in other.parts] == [
        ("somebody/else", "unknown"),
        ("lllyasviel/sd-controlnet-depth", "OpenRAIL"),
    ]


@pytest.mark.usefixtures("_mirrored")
def test_a_folder_is_noted_by_its_own_name_and_never_by_its_path(tmp_path, monkeypatch):
    mine = tmp_path / "home" / "somebody" / "lllyasviel" / "sd-controlnet-depth"
    mine.parent.mkdir(parents=True)
    mine.symlink_to(EMBEDDED / "controlnet")
    monkeypatch.chdir(tmp_path / "home" / "somebody")
    for place in (str(mine), "lllyasviel/sd-controlnet-depth"):  # the second is a folder here, and no model of the Hub
        net = load_diffusers("somebody/else", controlnets={"depth": place}).parts[1]
        assert "/" not in net.name and net.licence == "unknown"


@pytest.mark.parametrize(
    ("fast", "part"),
    [
        (True, Part("autoencoder", "madebyollin/taesd", "MIT")),
        ("somebody/small", Part("autoencoder", "somebody/small", "unknown")),
    ],
)
@pytest.mark.usefixtures("_mirrored")
def test_a_tiny_autoencoder_is_a_part_too(monkeypatch, fast, part):
    vae = load_tiny().vae
    monkeypatch.setattr(diffusers_module, "_load_tiny_autoencoder", lambda source, fast: vae)
    assert load_diffusers("somebody/else", fast=fast).parts[-1] == part


def test_what_is_written_is_read_and_so_is_what_was_written_before_parts_had_names(tmp_path):
    noted = (Part("backbone", "embedded", "Apache-2.0"), Part("scorer", "", "unknown"))
    (tmp_path / "licences.json").write_text(parts_to_json(noted))
    assert parts_of_run(tmp_path) == noted
    (tmp_path / "licences.json").write_text(json.dumps({"backbone": "MIT", "scorer": "unknown"}))
    assert parts_of_run(tmp_path) == (Part("backbone", "", "MIT"), Part("scorer", "", "unknown"))
    (tmp_path / "licences.json").unlink()
    assert parts_of_run(tmp_path) == ()


@pytest.mark.parametrize("text", ["", "{", "3", "null", '["backbone"]', '[{"role": "backbone"}]', '{"backbone": 3}'])
def test_a_damaged_note_is_said_to_be(tmp_path, text):
    (tmp_path / "licences.json").write_text(text)
    with pytest.raises(RunError, match=r"licences\.json is damaged"):
        parts_of_run(tmp_path)


@pytest.mark.parametrize(
    ("found", "measured_by"),
    [
        ({"rows": {"run": {}}}, [("metric judges", "Apache-2.0")]),
        ({"metrics": {"diversity": 1.0, "rsa_base": 0.5}}, []),
        ({"metrics": {"diversity": 1.0, "face": 0.5}}, [("metric face", "unknown")]),
        ([], []),
        ({"rows": {"run": {}}, "parts": []}, []),
        (
            {"rows": {"run": {}}, "metrics": {"face": 1.0}, "parts": [asdict(JUDGES), asdict(FACE)]},
            [("metric judges", "Apache-2.0"), ("metric face", "insightface: non-commercial research")],
        ),
    ],
)
def test_an_evaluation_adds_what_it_measured_with(tmp_path, found, measured_by):
    (tmp_path / "licences.json").write_text(parts_to_json(parts("MIT")))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps(found))
    first, *others = parts_of_run(tmp_path)
    assert first.role == "backbone"
    assert [(part.role, part.licence) for part in others] == measured_by
    assert all(part.measured_only for part in others) and not first.measured_only


@pytest.mark.parametrize("noted", [None, 3, "x", ["x"], [{"role": "metric x"}], [{**asdict(FACE), "name": 3}]])
def test_an_evaluation_that_does_not_say_what_it_measured_with_is_damaged(tmp_path, noted):
    (tmp_path / "licences.json").write_text(parts_to_json(parts("MIT")))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation" / "evaluation.json").write_text(json.dumps({"metrics": {}, "parts": noted}))
    with pytest.raises(RunError, match=r"evaluation\.json is damaged.*Evaluate again"):
        parts_of_run(tmp_path)


def test_a_metric_says_whose_weights_it_uses_and_counts_as_unknown_if_it_does_not():
    def measure(before, after, style):
        return {}

    assert parts_of_metric("face", measure) == (Part("metric face", "", "unknown"),)
    measure.parts = ()
    assert parts_of_metric("face", measure) == ()
    measure.parts = (replace(FACE, role="whatever"),)
    (part,) = parts_of_metric("face", measure)
    assert part == FACE and part.measured_only and commercial_use([part]) == "no"
    for wrong in ("buffalo_l", ["buffalo_l"], (("metric", "buffalo_l", "MIT"),), 3):
        measure.parts = wrong
        with pytest.raises(ConfigError, match=r"metric 'face' .* must be a tuple of distill3d\.licences\.Part"):
            parts_of_metric("face", measure)


# --commercial-ok


def load_free(weights=None, device="cpu", **options):
    toy = load_toy(weights, device, **options)
    toy.weights_licence = "MIT"
    return toy


def load_closed(weights=None, device="cpu", **options):
    toy = load_toy(weights, device, **options)
    toy.weights_name, toy.weights_licence = "ffhq512-128", EG3D
    return toy


@pytest.fixture
def _toys(monkeypatch):
    bare(monkeypatch)
    offers = registry().offers["backbone"]
    for name in ("free", "closed"):
        monkeypatch.setitem(offers, name, Offer(name, f"tests.test_licences:load_{name}", "tests"))


@pytest.mark.usefixtures("_toys")
def test_a_run_of_free_parts_notes_them_and_keeps_the_setting(tmp_path):
    folder = distill(replace(CONFIG, commercial_ok=True), tmp_path / "run")
    assert parts_of_run(folder)[0] == Part("backbone", "", "MIT")
    assert {part.name for part in parts_of_run(folder)[1:]} == {"embedded"}
    assert json.loads((folder / "config.json").read_text())["commercial_ok"] is True


@pytest.mark.usefixtures("_toys")
def test_a_backbone_that_is_not_open_is_refused_before_the_scorer_is_fetched(monkeypatch):
    monkeypatch.setattr(preparation, "load_scorer", lambda config: pytest.fail("fetched"))
    with pytest.raises(ConfigError) as error:
        prepare(replace(CONFIG, backbone="closed", commercial_ok=True))
    said = str(error.value)
    assert "backbone ffhq512-128 is under NVIDIA Source Code License for EG3D" in said
    assert "https://github.com/NVlabs/eg3d/blob/main/LICENSE.txt" in said and "--backbone" in said


@pytest.mark.usefixtures("_toys")
def test_an_unknown_scorer_is_refused_before_anything_is_written_and_taken_without_the_flag(tmp_path):
    (tmp_path / "mine").symlink_to(EMBEDDED)
    unknown = replace(CONFIG, scorer_weights=str(tmp_path / "mine"))
    with pytest.raises(ConfigError, match=r"licence of the scorer diffusion is unknown.*--scorer-weights"):
        distill(replace(unknown, commercial_ok=True), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert prepare(unknown).parts[1].licence == "unknown"


@pytest.mark.usefixtures("_toys")
def test_a_model_of_the_hub_that_is_not_known_is_refused_before_it_is_fetched(monkeypatch):
    fetch = lambda *given, **options: pytest.fail("fetched")  # noqa: E731
    monkeypatch.setattr(diffusers_module, "load_part", fetch)
    config = replace(CONFIG, scorer="diffusers", scorer_weights="somebody/else", commercial_ok=True)
    with pytest.raises(ConfigError, match="licence of the scorer somebody/else is unknown"):
        prepare(config)
    nets = {"depth": "lllyasviel/sd-controlnet-depth", "canny": "somebody/edges"}
    with pytest.raises(ConfigError, match="controlnet canny somebody/edges is unknown") as error:
        prepare(replace(config, scorer_weights="CompVis/stable-diffusion-v1-4", controlnets=nets))
    assert "depth" not in str(error.value)


@pytest.mark.usefixtures("_toys")
def test_a_resumed_run_asks_again_until_it_is_told_otherwise(tmp_path, monkeypatch):
    folder = distill(replace(CONFIG, commercial_ok=True), tmp_path / "run")
    monkeypatch.setattr("tests.test_licences.load_free", load_closed)
    with pytest.raises(ConfigError, match="no-commercial-ok"):
        resume(folder)
    resume(folder, changes={"commercial_ok": False})


def test_each_refused_part_is_named_with_what_to_do_instead():
    with pytest.raises(ConfigError) as error:
        check_commercial((*parts("unknown", "unknown", "unknown", "CC-BY-NC-4.0"), Part("metric x", "", "?")))
    lines = str(error.value).splitlines()
    for word, flag in {
        "scorer": "--scorer-weights",
        "controlnet depth": "--controlnet",
        "autoencoder": "--fast",
    }.items():
        assert any(word in line and flag in line for line in lines)
    check_commercial(parts("MIT", "CreativeML OpenRAIL-M"))


def test_the_setting_is_a_yes_or_no():
    with pytest.raises(ConfigError, match="true or false"):
        DistillConfig(style="zombie", commercial_ok="yes")


# distill3d licences


def told(folder, *flags):
    app = typer.Typer()
    app.command()(licences)
    return CliRunner().invoke(app, [str(folder), *flags])


def run_with(folder, *texts):
    (folder / "config.json").write_text(DistillConfig(style="zombie").to_json())
    (folder / "licences.json").write_text(parts_to_json(parts(*texts)))
    return folder


@pytest.mark.parametrize(("texts", "code"), [(("MIT", "OpenRAIL"), 0), (("MIT", "unknown"), 1), ((EG3D,), 1), ((), 1)])
def test_the_command_tells_each_part_and_its_exit_code_the_verdict(tmp_path, texts, code):
    run = run_with(tmp_path, *texts)
    plain, asked = told(run), told(run, "--commercial-ok")
    assert (plain.exit_code, asked.exit_code) == (0, code)
    assert plain.output == asked.output and verdict(parts_of_run(run)) in plain.output
    for part in parts_of_run(run):
        line = next(line for line in plain.output.splitlines() if line.startswith(part.role))
        assert known_licence(part.licence).commercial in line
        assert source_of(part) in line


def test_a_strangers_words_do_nothing_to_the_terminal(tmp_path):
    run = run_with(tmp_path)
    (run / "licences.json").write_text(parts_to_json([Part("scorer\n\x1b[2J", "\u202ename", "MIT" + 9000 * "x")]))
    said = told(run).output
    assert (
        "\x1b" not in said and "\u202e" not in said and "scorer [2J" in said and max(map(len, said.splitlines())) < 500
    )


def test_the_command_tells_a_part_that_claims_more_than_is_known_of_it(tmp_path):
    run = run_with(tmp_path)
    (run / "licences.json").write_text(parts_to_json([Part("backbone", "ffhq512-128", "MIT")]))
    asked = told(run, "--commercial-ok")
    line = next(line for line in asked.output.splitlines() if line.startswith("backbone"))
    assert asked.exit_code == 1
    assert "NVIDIA Source Code License for EG3D (it says MIT)  no" in line and "NVlabs/eg3d" in line


def test_a_licence_that_is_cut_on_the_screen_is_judged_whole(tmp_path):
    run = run_with(tmp_path)
    (run / "licences.json").write_text(parts_to_json([Part("backbone", "", "MIT" + 200 * " -" + "nobody knows")]))
    assert told(run, "--commercial-ok").exit_code == 1


def test_the_command_reads_a_style_pack_too(tmp_path):
    pack = small_pack(tmp_path / "pack")
    said = replace(pack.content, parts=parts("MIT", "OpenRAIL"))
    (pack.folder / "config.json").write_text(said.to_json())
    assert "open under the conditions of OpenRAIL" in told(pack.folder, "--commercial-ok").output
