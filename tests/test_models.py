"""Whatever a user calls a model becomes a renderer in its style, and mixtures of them."""

import copy
import json
import shutil

import pytest
import torch

import distill3d
from distill3d.errors import ConfigError, RunError, WeightsError
from distill3d.models import find_model, load, load_mixture
from distill3d.packs.pack import StylePack, open_pack
from distill3d.publish import make_pack
from distill3d.renderer import FromPhotos
from distill3d.runs import RunFolder
from distill3d.showcase import look
from tests import toys
from tests.photo_runs import a_photo, a_run
from tests.toys import PhotoToy, load_photo_toy

pytestmark = pytest.mark.usefixtures("photo_toys")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, photo_toys):
    """runs/zombie-toy and runs/other, trained apart; and a pack of the first."""
    folder = tmp_path_factory.mktemp("here") / "runs"
    a_run(folder / "zombie-toy", seed=0)
    a_run(folder / "other", seed=5)
    make_pack(folder / "zombie-toy", folder.parent / "pack", repo_id="somebody/zombie")
    return folder


@pytest.fixture
def here(runs, monkeypatch):
    monkeypatch.chdir(runs.parent)
    return runs.parent


def weights(renderer):
    return {name: p.detach() for name, p in renderer.named_parameters()}


def same(one, other):
    one, other = weights(one), weights(other)
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("model", ["zombie-toy", "zombie", "runs/zombie-toy", "runs/../runs/zombie-toy"])
def test_a_run_is_found_by_its_folder_and_by_its_name_below_runs(here, model):
    found = find_model(model)
    assert isinstance(found, RunFolder)
    assert (found.name, found.style) == ("zombie-toy", "zombie")


def test_a_pack_is_found_by_its_folder(here):
    found = find_model("pack")
    assert isinstance(found, StylePack)
    assert found.backbone.sha256 == find_model("zombie").backbone.sha256
    assert same(load("pack"), load("zombie"))


def test_a_name_that_two_runs_could_mean_is_asked_about(here, tmp_path, monkeypatch):
    for name in ("zombie-toy", "zombie-tiny"):
        (tmp_path / "runs" / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"zombie could be any of runs/zombie-tiny, runs/zombie-toy\. Say which"):
        find_model("zombie")


@pytest.mark.parametrize("model", ["nowhere", "a/b/c", "/no/where", "./a/b", "../a", "a/b?x", "", "a b/c", "a" * 300])
def test_what_is_neither_folder_nor_id_is_one_sentence_and_the_hub_is_not_asked(here, model, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(RunError, match=r"no Hub id, which looks like user/name|is no run folder"):
        find_model(model)


def test_a_loaded_model_is_its_backbones_own_and_knows_the_original(here):
    model = load("zombie")
    assert isinstance(model, distill3d.Renderer)
    assert isinstance(model, PhotoToy)
    assert isinstance(model, FromPhotos)
    assert model.amounts == {"zombie-toy": 1.0}
    assert not same(model, model.original)
    assert model.state_dict().keys() == model.original.state_dict().keys()  # it does not hold the original too


def test_a_copy_of_a_loaded_model_can_be_mixed_too(here):
    model = copy.deepcopy(load("zombie"))
    assert same(model.blend({"zombie": 0.0}), model.original)


def test_no_amount_is_the_original_and_all_of_it_the_run_bit_for_bit(here):
    model = load("zombie")
    assert same(model.blend({"zombie-toy": 0}), model.original)
    assert same(model.blend({"zombie-toy": 0.5}).blend({"zombie-toy": 1.0}), model)
    assert torch.equal(look(model.blend({"zombie": 0.0}), [0], [0.0]), look(model.original, [0], [0.0]))


def test_a_mixture_is_the_formula(here):
    model, other = load("zombie"), load("other")
    mixed = weights(model.blend({"zombie": 0.6, "runs/other": 0.7}))
    start, one, two = weights(model.original), weights(model), weights(other)
    for name in start:
        expected = start[name] + 0.6 * (one[name] - start[name]) + 0.7 * (two[name] - start[name])
        torch.testing.assert_close(mixed[name], expected)


def test_a_style_that_is_not_named_keeps_its_amount(here):
    model = load("zombie")
    mixed = model.blend({"runs/other": 0.5})
    assert mixed.amounts == {"zombie-toy": 1.0, "other": 0.5}
    assert same(mixed.blend({"other": 0}), model)


def test_the_command_lines_mixture_is_the_same(here):
    mixed = load_mixture({"zombie": 0.6, "runs/other": 0.7})
    assert same(mixed, load("zombie").blend({"zombie": 0.6, "runs/other": 0.7}))


def test_two_folders_of_one_name_are_two_styles(here, tmp_path):
    shutil.copytree(here / "runs" / "other", tmp_path / "zombie-toy")
    other = str(tmp_path / "zombie-toy")
    mixed = load("zombie").blend({other: 1.0})
    assert mixed.amounts == {"zombie-toy": 1.0, other: 1.0}
    assert mixed.blend({other: 0.5}).amounts == {"zombie-toy": 1.0, other: 0.5}
    assert same(mixed.blend({"zombie-toy": 0}), load("runs/other"))


@pytest.mark.parametrize("amounts", [0.5, "zombie", None, ["zombie"]])
def test_amounts_come_by_style(here, amounts):
    with pytest.raises(ConfigError, match="blend takes amounts by style, as"):
        load("zombie").blend(amounts)


def test_styles_of_two_backbones_do_not_mix(here, tmp_path):
    a_run(tmp_path / "another", backbone="toy")
    with pytest.raises(ConfigError, match="style of backbone 'toy', and zombie-toy is one of 'photo-toy': only"):
        load("zombie").blend({str(tmp_path / "another"): 1.0})


@pytest.mark.parametrize("second", ["runs/zombie-toy", "runs/../runs/zombie-toy", "zombie-toy"])
def test_one_style_by_two_names_is_no_mixture(here, second):
    with pytest.raises(ConfigError, match=f"zombie and {second} are the same style; name it once"):
        load_mixture({"zombie": 0.6, second: 0.4})
    with pytest.raises(ConfigError, match="names zombie-toy a second time; name it once"):
        load("zombie").blend({"zombie": 0.6, second: 0.4})


def test_a_folder_of_a_style_that_is_mixed_already_is_that_style(here):
    assert load("zombie").blend({str(here / "runs" / "zombie-toy"): 0.5}).amounts == {"zombie-toy": 0.5}


def test_a_name_that_is_the_style_of_several_is_asked_about(here):
    mixed = load("zombie-toy").blend({"pack": 0.5})
    assert mixed.amounts == {"zombie-toy": 1.0, "pack": 0.5}
    with pytest.raises(ConfigError, match=r"zombie could be any of zombie-toy, pack\. Say which"):
        mixed.blend({"zombie": 0.2})


def test_a_bare_name_in_a_mixture_is_a_model_and_not_the_style_of_another(here):
    """The pack is of style zombie too; `zombie` is runs/zombie-toy all the same."""
    assert load_mixture({"pack": 0.5, "zombie": 0.25}).amounts == {"pack": 0.5, "zombie-toy": 0.25}


def test_a_misspelt_folder_below_runs_is_not_asked_of_the_hub(here, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *a, **k: pytest.fail("asked"))
    with pytest.raises(RunError, match=r"no run folder runs/zombei-toy\. Did you mean runs/zombie-toy\?"):
        find_model("runs/zombei-toy")
    with pytest.raises(RunError, match=r"no run folder zombei-toy, .* Did you mean runs/zombie-toy\?"):
        find_model("zombei-toy")


@pytest.mark.parametrize("weights", ["somebody/huge", "somebody/huge@main", "a/b/c"])
def test_a_pack_does_not_choose_what_is_downloaded_as_its_base(here, tmp_path, monkeypatch, weights):
    asked = []

    def load_asked(weights=None, device="cpu"):
        asked.append(weights)
        return load_photo_toy(None, device)

    monkeypatch.setattr(toys, "load_photo_toy", load_asked)
    shutil.copytree(here / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "config.json"
    values = json.loads(path.read_text())
    values["base"]["weights"] = weights
    path.write_text(json.dumps(values))
    assert same(load(tmp_path / "pack"), load(here / "pack"))  # the backbone's own are the right ones
    values["base"]["sha256"] = "0" * 64
    path.write_text(json.dumps(values))
    with pytest.raises(WeightsError, match=f"published as {weights}, .* Give the right ones with --base {weights}"):
        load(tmp_path / "pack")
    assert set(asked) <= {None, ""}
    load_asked(weights)
    with pytest.raises(WeightsError, match="are others"):
        load(tmp_path / "pack", base=weights)
    assert asked[-1] == weights  # the user may


def test_a_base_that_cannot_be_loaded_is_named(here, tmp_path, monkeypatch):
    def missing(weights=None, device="cpu"):
        raise WeightsError("The checkpoint is not here. Get it with: toy fetch.")

    monkeypatch.setattr(toys, "load_photo_toy", missing)
    sentence = r"pack belongs to weights of backbone 'photo-toy', sha256 .* could not be loaded: .* toy fetch"
    with pytest.raises(WeightsError, match=sentence):
        load("pack")


def test_nothing_of_a_loaded_model_asks_for_a_gradient(here):
    model = load("zombie")
    for renderer in (model, model.blend({"zombie": 0.5}), model.original):
        assert not any(p.requires_grad for p in renderer.parameters())


def test_subjects_of_a_run_can_be_left_out(here, tmp_path):
    photo = a_photo(tmp_path / "me.png")
    run = a_run(tmp_path / "of-me", backbone_options={"subjects": (str(photo),)})
    photo.unlink()
    with pytest.raises(ConfigError, match="There are no subjects"):
        load(run)
    assert isinstance(load(run, subjects=False), PhotoToy)


def test_another_base_is_refused_and_named(here, tmp_path):
    shutil.copytree(here / "runs" / "zombie-toy", tmp_path / "run")
    (tmp_path / "run" / "base.json").write_text(json.dumps({"backbone_sha256": "0" * 64}))
    with pytest.raises(
        WeightsError, match=r"run belongs to weights of backbone 'photo-toy', sha256 0{64}\. Those that"
    ):
        load(tmp_path / "run")


def test_a_backbone_that_is_not_installed_is_named(here, tmp_path):
    shutil.copytree(here / "pack", tmp_path / "pack")
    path = tmp_path / "pack" / "config.json"
    path.write_text(path.read_text().replace('"photo-toy"', '"gone"'))
    with pytest.raises(ConfigError, match="pack needs the backbone 'gone', which is not installed"):
        load(tmp_path / "pack")


def test_a_pack_is_no_run_to_go_on_with(here):
    from distill3d.explain import explain
    from distill3d.recipe import resume

    with pytest.raises(RunError, match="is a style pack, not a run"):
        resume(here / "pack")
    with pytest.raises(RunError, match="pack is a style pack, not a run: it has no checkpoints"):
        explain(here / "pack", 1)


def test_a_device_that_is_not_here_is_one_sentence(here):
    with pytest.raises(ConfigError, match="There is no device 'cuda:99' here"):
        load("pack", device="cuda:99")


def test_open_pack_and_the_mixins_from_pretrained_are_one(here):
    assert StylePack.from_pretrained("pack").content == open_pack(here / "pack").content
