"""The demo in examples/space: what it does behind its widgets, and that the Hub can read what it is."""

import importlib.util
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from distill3d.config import DistillConfig
from distill3d.errors import ConfigError, RunError
from distill3d.models import load
from distill3d.publish import make_pack
from distill3d.recipe import distill
from distill3d.report.pictures import to_picture
from distill3d.showcase import look
from tests.varied_runs import two_runs

SPACE = Path(__file__).parents[1] / "examples" / "space"


@pytest.fixture(scope="module")
def studio():
    """The module behind the widgets, which needs no gradio."""
    spec = importlib.util.spec_from_file_location("studio", SPACE / "studio.py")
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "studio", module)  # where dataclasses look
        with pytest.MonkeyPatch.context() as without:
            without.setitem(sys.modules, "gradio", None)
            spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A pack and a run."""
    folder = tmp_path_factory.mktemp("runs")
    with two_runs(folder) as (one, two):
        make_pack(one, folder / "pack", repo_id="somebody/one")
        yield [str(folder / "pack"), str(two)]


@pytest.fixture(scope="module")
def opened(studio, models):
    return studio.Studio.open(models)


def enlarged(renderer, seed, yaw):
    picture = to_picture(look(renderer, [seed], [yaw])[0, 0])
    return np.asarray(picture.resize((384, 384), Image.Resampling.LANCZOS))


def test_packs_are_named_by_the_environment_or_else_by_the_file(studio, tmp_path):
    (tmp_path / "packs" / "mine").mkdir(parents=True)
    (tmp_path / "packs.txt").write_text("# ours\nuser/zombie@v1  # the first\n\npacks/mine\n")
    assert studio.packs_named(tmp_path, {}) == ["user/zombie@v1", str(tmp_path / "packs" / "mine")]
    assert studio.packs_named(tmp_path, {"DISTILL3D_PACKS": " user/a  packs/mine "}) == [
        "user/a",
        str(tmp_path / "packs" / "mine"),
    ]


def test_without_a_pack_it_says_where_to_name_one(studio, tmp_path):
    with pytest.raises(ConfigError, match=r"No style pack is named\. .* packs\.txt, or into DISTILL3D_PACKS"):
        studio.packs_named(tmp_path, {})


def test_as_it_is_it_opens_the_packs_beside_it(studio):
    assert studio.Studio.open(studio.packs_named(SPACE, {})).names == ["zombie", "pixar"]


def test_a_pack_that_cannot_be_had_is_one_sentence(studio, models):
    with pytest.raises(RunError, match="There is no run folder nowhere"):
        studio.Studio.open([models[0], "nowhere"])


def test_styles_are_in_the_order_of_the_packs_and_their_labels_differ(opened):
    assert opened.names == ["pack", "two"]
    assert opened.labels == ["zombie (pack)", "zombie (two)"]
    assert opened.has_parts and opened.widest_yaw == 180


def test_none_of_any_style_is_before_and_all_of_one_is_its_run(opened, models):
    before, after = opened.pictures(3, 20, [0, 0])
    np.testing.assert_array_equal(before, after)
    for place, model in enumerate(models):
        renderer = load(model)
        before, after = opened.pictures(3, 20, [float(place == 0), float(place == 1)])
        np.testing.assert_array_equal(np.asarray(before), enlarged(renderer.original, 3, 20.0))
        np.testing.assert_array_equal(np.asarray(after), enlarged(renderer, 3, 20.0))


def test_sliders_are_amounts_and_factors_of_parts(opened, models):
    mixed = load(models[0]).blend({"pack": 0.8, models[1]: 0.5})
    _, after = opened.pictures(1, -35, [0.8, 0.5])
    np.testing.assert_array_equal(np.asarray(after), enlarged(mixed, 1, -35.0))
    parts = mixed.blend({"pack": {"geometry": 0.4, "texture": 1.2}, "two": {"geometry": 0.25, "texture": 0.75}})
    _, after = opened.pictures(1, -35, [0.8, 0.5], geometry=0.5, texture=1.5)
    np.testing.assert_array_equal(np.asarray(after), enlarged(parts, 1, -35.0))


def test_the_turntable_goes_round_before_above_after(opened, tmp_path):
    made = opened.turntable(2, [1, 0], 1, 1, tmp_path / "turn.webp", frames=5)
    with Image.open(made) as turn:
        assert (turn.format, turn.n_frames, turn.info["loop"]) == ("WEBP", 5, 0)
        assert turn.height == 2 * turn.width


def test_the_hub_can_read_what_the_space_is():
    """The fields of https://huggingface.co/docs/hub/spaces-config-reference that it has."""
    front = yaml.safe_load(SPACE.joinpath("README.md").read_text(encoding="utf-8").split("---\n")[1])
    assert front["sdk"] == "gradio" and re.fullmatch(r"6\.\d+\.\d+", front["sdk_version"])
    assert (SPACE / front["app_file"]).is_file()
    assert front["license"] == "apache-2.0" and front["title"] and len(front["short_description"]) <= 60
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {front["colorFrom"], front["colorTo"]} <= colours
    needed = (SPACE / "requirements.txt").read_text().split()
    assert "distill3d>=0.1" in needed


def test_the_page_answers_a_client(studio, opened, monkeypatch, tmp_path):
    pytest.importorskip("gradio")
    client = pytest.importorskip("gradio_client")
    spec = importlib.util.spec_from_file_location("space_app", SPACE / "app.py")
    app = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(app)
    page = app.build(opened).queue(default_concurrency_limit=1)
    _, address, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        asked = client.Client(address, verbose=False)
        before, after = asked.predict(3, 20, 1, 1, 0, 0, api_name="/show")
        np.testing.assert_array_equal(Image.open(before), Image.open(after))
        _, after = asked.predict(3, 20, 1, 1, 0.8, 0.5, api_name="/show")
        np.testing.assert_array_equal(Image.open(after), opened.pictures(3, 20, [0.8, 0.5])[1])
        with Image.open(asked.predict(3, 1, 1, 0.8, 0.5, api_name="/turn")["value"]) as turn:
            assert turn.n_frames == studio.FRAMES
    finally:
        page.close()
    monkeypatch.setattr(app, "HERE", tmp_path)
    monkeypatch.delenv(studio.VARIABLE, raising=False)
    assert "No style pack is named" in str(app.open_page().get_config_file())


@pytest.mark.slow
def test_the_embedded_backbone_answers_a_change_within_a_cpu_second(studio, tmp_path):
    run = distill(DistillConfig(style="zombie", steps=2), tmp_path / "run")
    opened = studio.Studio.open([str(run)])
    studio.use_few_threads(opened)
    opened.pictures(0, 0, [1.0])
    seconds = []
    for i in range(5):
        started = time.process_time()
        opened.pictures(i, 10 * i, [0.2 * i], geometry=0.9)
        seconds.append(time.process_time() - started)
    print(f"a change took {sorted(seconds)[2]:.2f} CPU seconds")
    assert sorted(seconds)[2] < 1
