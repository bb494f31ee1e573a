"""W+ files as subjects, and the settings of the backbones."""

import numpy as np
import pytest
import torch
from heads import blob, write_pickle

from distill3d.cameras import orbit
from distill3d.cli.run import _value
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError, WeightsError
from distill3d.models import load
from distill3d.plugins import registry
from distill3d.recipe import distill
from distill3d.runs import load_backbone
from distill3d_eg3d.renderer import Look
from distill3d_eg3d.subjects import read_subjects

SHAPE = (14, 512)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A checkpoint, and two files of three W+ codes in a folder."""
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    write_pickle(blob(neural_resolution=16, samples=6), tmp_path / "blob.pkl")
    (tmp_path / "people").mkdir()
    draw = np.random.RandomState(0)
    np.savez(tmp_path / "people" / "b.npz", w=draw.randn(2, *SHAPE))
    np.savez(tmp_path / "people" / "a.npz", w=draw.randn(*SHAPE).astype(np.float32))
    return tmp_path


def config(folder, **options):
    return DistillConfig(
        probe=0,
        style="zombie",
        backbone="eg3d",
        weights=str(folder / "blob.pkl"),
        scorer="tiny",
        steps=1,
        backbone_options=options,
    )


def test_files_and_folders_are_read_in_order(folder):
    codes = read_subjects([str(folder / "people")])
    assert codes.shape == (3, *SHAPE) and codes.dtype == torch.float32
    first = torch.from_numpy(np.load(folder / "people" / "a.npz")["w"])
    assert torch.equal(codes[0], first)
    assert torch.equal(read_subjects([str(folder / "people" / "a.npz")] * 2), torch.stack([first, first]))


def test_given_subjects_are_drawn_and_counted_instead_of_seeds(folder):
    renderer = load_backbone(config(folder, subjects=(str(folder / "people"),)))
    codes = read_subjects([str(folder / "people")])
    assert torch.equal(renderer.codes_of_seeds([1, 4, 0]), codes[[1, 1, 0]])
    drawn = torch.cat([renderer.sample_codes(Draws(0, step, (0, 1))) for step in range(12)])
    assert {int((drawn == code).flatten(1).all(1).sum()) > 0 for code in codes} == {True}
    assert "subjects" not in renderer.state_dict()


def test_a_run_on_given_subjects_shows_them_and_remembers_where_they_are(folder):
    run = distill(config(folder, subjects=(str(folder / "people"),), psi=0.5), folder / "run")
    stylised = load(run)
    original = stylised.original
    codes = read_subjects([str(folder / "people")])
    assert torch.equal(stylised.codes_of_seeds([2]), codes[2:])
    assert original.look.psi == 0.5


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"z": np.zeros((1, 14, 512))}, "an array called 'w' is wanted"),
        ({"w": np.zeros((1, 3, 14, 512))}, "no W\\+ code"),
        ({"w": np.full((1, 14, 512), np.nan)}, "no W\\+ code"),
        ({"w": np.array(["a"])}, "no W\\+ code"),
        ({"w": np.zeros((0, 14, 512))}, "no W\\+ code"),
        ({"w": np.full((1, 14, 512), 1e300)}, "no W\\+ code"),
        ({"w": np.array([{}], dtype=object)}, "cannot be read"),  # an object array would have to be unpickled
    ],
)
def test_files_that_hold_no_codes_are_refused(content, said, tmp_path):
    np.savez(tmp_path / "x.npz", **content)
    with pytest.raises(WeightsError, match=said):
        read_subjects([str(tmp_path / "x.npz")])


def test_places_without_files_damaged_files_and_other_shapes_are_refused(folder):
    with pytest.raises(ConfigError, match="no subjects at"):
        read_subjects([str(folder / "nowhere")])
    (folder / "empty").mkdir()
    with pytest.raises(ConfigError, match=r"holds no \.npz"):
        read_subjects([str(folder / "empty")])
    (folder / "cut.npz").write_bytes((folder / "people" / "a.npz").read_bytes()[:100])
    with pytest.raises(WeightsError, match="cannot be read"):
        read_subjects([str(folder / "cut.npz")])
    np.savez(folder / "other.npz", w=np.zeros((12, 512)))
    with pytest.raises(WeightsError, match="differ in shape"):
        read_subjects([str(folder / "people"), str(folder / "other.npz")])
    with pytest.raises(ShapeError, match="Subjects of this checkpoint"):
        load_backbone(config(folder, subjects=(str(folder / "other.npz"),)))


def test_settings_reach_the_renderer_and_wrong_ones_are_named(folder):
    given = {"psi": 0.6, "cutoff": 3, "background": "white", "noise": "none", "low_memory": True}
    look = load_backbone(config(folder, **given, precision="bfloat16")).look
    assert look == Look(**given, precision="bfloat16")
    with pytest.raises(ConfigError, match=r"Backbone 'eg3d' has no setting called 'truncation'\. It has: psi, cutoff"):
        load_backbone(config(folder, truncation=0.7))
    with pytest.raises(ConfigError, match="precision must be one of float32, bfloat16, float16, got 'half'"):
        load_backbone(config(folder, precision="half"))
    with pytest.raises(ConfigError, match="subjects must be paths"):
        load_backbone(config(folder, subjects=3))


def test_what_is_typed_reaches_the_renderer_in_its_type(folder):
    """A number of the command line is a float; a path alone is one path."""
    people = str(folder / "people")
    typed = {name: _value(text) for name, text in {"cutoff": "3", "psi": "1", "low_memory": "true"}.items()}
    renderer = load_backbone(config(folder, **typed, subjects=people))
    assert (renderer.look.cutoff, renderer.look.psi, renderer.look.low_memory) == (3, 1, True)
    assert isinstance(renderer.look.cutoff, int)
    assert len(renderer.subjects) == 3


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_super_resolution_in_half_precision_is_near_and_has_gradients(precision):
    pictures, yaw = [], torch.tensor([[0.2]])
    for look in (Look(), Look(precision=precision)):
        renderer = blob(look=look)
        for parameter in renderer.trainable().values():
            parameter.requires_grad_(True)
        picture = renderer.render(renderer.scene(renderer.codes_of_seeds([0])), orbit(yaw, 0 * yaw)).image
        picture.square().sum().backward()
        assert picture.dtype == torch.float32
        assert all(p.grad.isfinite().all() for p in renderer.trainable().values())
        pictures.append(picture.detach())
    assert not torch.equal(*pictures)
    assert (pictures[0] - pictures[1]).abs().max() < 0.02


def test_every_setting_is_listed_with_its_backbone():
    from typer.testing import CliRunner

    from distill3d.cli import app

    said = CliRunner().invoke(app, ["backbones"]).output
    assert "settings: psi, cutoff, background, noise, precision, compiled, low_memory, subjects" in said
    assert "(Chan et al., CVPR 2022)" in said
    assert {"eg3d", "panohead", "tiny"} <= set(registry().names("backbone"))
