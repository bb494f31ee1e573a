"""EG3D and PanoHead as backbones of the core."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import trimesh
from heads import architecture, blob, write_pickle

from distill3d.cameras import Cameras, focal_from_fov, from_label, look_at, orbit, pinhole, to_label
from distill3d.config import DistillConfig
from distill3d.draws import Draws
from distill3d.errors import ConfigError, ShapeError, UnknownNameError
from distill3d.export import extract_mesh
from distill3d.models import load
from distill3d.recipe import distill
from distill3d.testing import check_renderer
from distill3d.volume import pixel_rays
from distill3d_eg3d.generator import truncated
from distill3d_eg3d.renderer import Look, TriplaneRenderer, average_camera_label

FAMILIES = pytest.mark.parametrize("panohead", [False, True], ids=["eg3d", "panohead"])


def cameras(*degrees, subjects=1):
    yaw = torch.tensor(degrees).deg2rad().expand(subjects, -1)
    return orbit(yaw, torch.full_like(yaw, 0.1))


@FAMILIES
def test_the_contract_of_a_backbone_is_kept(panohead):
    report = check_renderer(blob(panohead=panohead))
    assert "0 skipped" in str(report)


@FAMILIES
def test_a_mirrored_camera_sees_what_its_flipped_ray_bundle_meets(panohead):
    """Mirrored rays are the flipped rays, mirrored; on an asymmetric subject the pictures differ."""
    seen = cameras(40.0, -25.0)
    straight, mirrored = pixel_rays(seen, 6, 6), pixel_rays(seen.mirrored(), 6, 6)
    across = torch.tensor([-1.0, 1.0, 1.0])
    for one, other in zip(straight, mirrored):
        flipped = one.unflatten(2, (6, 6)).flip(3).flatten(2, 3)
        torch.testing.assert_close(other, flipped * across, atol=1e-6, rtol=0)
    renderer = blob(panohead=panohead)
    scene = renderer.scene(renderer.codes_of_seeds([0]))
    left, right = renderer.render(scene, cameras(-40.0, 40.0), upto="raw").raw[0]
    assert (left - right.flip(-1)).abs().mean() > 0.01


def test_labels_go_round_and_have_the_published_numbers():
    seen = cameras(30.0, -60.0, subjects=2)
    label = to_label(seen)
    assert label.shape == (2, 2, 25)
    back = from_label(label)
    assert torch.equal(back.cam2world, seen.cam2world)
    assert torch.equal(back.intrinsics, seen.intrinsics)
    mirrored, signs = to_label(seen.mirrored()), torch.ones(25)
    signs[[1, 2, 3, 4, 8]] = -1  # R01, R02, tx, R10, R20
    torch.testing.assert_close(mirrored, label * signs)
    # official scripts round pi to 3.14159 and the square root of 2 to 1.414
    assert focal_from_fov(18.837, diagonal=True) / math.sqrt(2) * 2 / 1.414 == pytest.approx(4.2634, abs=1e-4)


def test_the_average_camera_looks_at_the_pivot_from_the_front():
    label = average_camera_label(architecture())
    pose = label[0, :16].view(4, 4)
    assert pose[:3, 3].tolist() == pytest.approx([0, 0, 2.7])
    assert pose[:3, 2].tolist() == pytest.approx([0, 0, -1])
    assert pose[:3, 1].tolist() == pytest.approx([0, -1, 0])
    assert label[0, 16] == pytest.approx(4.2647)


def test_positive_yaw_moves_a_camera_to_where_the_official_one_stands():
    """h = pi/2 + yaw stands at x = r sin(yaw), v = pi/2 + p at height -2 p / pi r."""
    for yaw, p in ((0.4, -0.2), (-0.7, 0.15)):
        height = -2 * p / math.pi
        ours = orbit(torch.tensor([[yaw]]), torch.tensor([[math.asin(height)]])).cam2world[0, 0]
        flat = math.sqrt(1 - height**2)
        official = 2.7 * torch.tensor([flat * math.sin(yaw), height, flat * math.cos(yaw)])
        torch.testing.assert_close(ours[:3, 3], official, atol=1e-5, rtol=0)
        torch.testing.assert_close(ours, look_at(official, torch.zeros(3)), atol=1e-5, rtol=0)


def test_seeds_are_those_of_the_official_scripts():
    renderer = blob(look=Look(psi=0.6, cutoff=5))
    z = torch.from_numpy(np.random.RandomState(7).randn(1, 16)).float()
    label = average_camera_label(renderer.architecture)
    ws = renderer.generator.ws(z, label, psi=0.6, cutoff=5)
    torch.testing.assert_close(renderer.codes_of_seeds([7]), ws)


def test_truncation_moves_the_first_rows_towards_the_mean():
    ws, mean = torch.randn(2, 6, 4), torch.randn(4)
    assert truncated(ws, mean, 1.0, None) is ws
    torch.testing.assert_close(truncated(ws, mean, 0.0, None), mean.expand(2, 6, 4))
    half = truncated(ws, mean, 0.5, 2)
    torch.testing.assert_close(half[:, :2], (ws[:, :2] + mean) / 2)
    assert torch.equal(half[:, 2:], ws[:, 2:])


@FAMILIES
def test_planes_are_made_once_however_many_cameras_look(panohead, monkeypatch):
    renderer = blob(panohead=panohead)
    made, planes = [], renderer.generator.planes
    monkeypatch.setattr(renderer.generator, "planes", lambda *given: made.append(1) or planes(*given))
    scene = renderer.scene(renderer.codes_of_seeds([0]))
    renderer.render(scene, cameras(-30.0, 0.0, 30.0))
    renderer.render(scene, cameras(10.0))
    assert len(made) == 1


@FAMILIES
def test_low_memory_and_any_number_of_rays_at_once_change_nothing(panohead):
    """Neither pictures nor gradients; with jitter, which must be drawn the same when rays are traced again."""
    draws, found = Draws(3, 1, (0,)), []
    for look in (Look(), Look(low_memory=True, rays_at_once=100), Look(rays_at_once=333)):
        renderer = blob(panohead=panohead, look=look, neural_resolution=16, samples=8).double()
        weights = renderer.trainable("all")
        for weight in weights.values():
            weight.requires_grad_(True)
        codes = renderer.codes_of_seeds([1]).double()
        picture = renderer.render(renderer.scene(codes), cameras(20.0, -20.0), draws=draws)
        total = picture.image.sin().sum() + picture.depth.sin().sum() + picture.opacity.sin().sum()
        gradients = torch.autograd.grad(total, list(weights.values()), allow_unused=True)
        with torch.no_grad():
            alone = renderer.render(renderer.scene(codes), cameras(20.0, -20.0), draws=draws)
        found.append([*picture.tensors().values(), *alone.tensors().values(), *[g for g in gradients if g is not None]])
    for other in found[1:]:
        assert len(other) == len(found[0])
        for one, same in zip(found[0], other):
            torch.testing.assert_close(same, one, atol=1e-9, rtol=1e-7)


def test_low_memory_keeps_fewer_bytes_for_the_way_back():
    """Counted where autograd keeps them."""

    def kept(look):
        renderer = blob(look=look)
        for weight in renderer.trainable().values():
            weight.requires_grad_(True)
        sizes = {}

        def note(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            picture = renderer.render(renderer.scene(renderer.codes_of_seeds([0])), cameras(0.0))
        assert picture.image.requires_grad
        return sum(sizes.values())

    assert kept(Look(low_memory=True)) < 0.5 * kept(Look())


def test_what_is_behind_the_head_can_be_chosen():
    seen, pictures = cameras(0.0), {}
    for background in ("learnt", "white", "none"):
        renderer = blob(panohead=True, look=Look(background=background))
        with torch.no_grad():
            renderer.generator.bcg_synthesis.b4.torgb.bias.fill_(-0.3)
        pictures[background] = renderer.render(renderer.scene(renderer.codes_of_seeds([0])), seen, upto="raw")
    opacity = pictures["none"].opacity
    assert opacity.min() < 0.05
    white, none = pictures["white"].raw, pictures["none"].raw
    torch.testing.assert_close(white, none * opacity + (1 - opacity))
    changed = (pictures["learnt"].raw - none).abs().amax(2, keepdim=True)
    assert changed[opacity < 0.05].min() > 0.05
    assert changed[opacity > 0.999].max() < 0.01


@pytest.mark.parametrize(
    ("group", "wanted"),
    [
        ("default", {"backbone.synthesis", "superresolution"}),
        ("decoder", {"decoder"}),
        ("all", {"backbone.synthesis", "superresolution", "decoder", "torgb", "bcg_synthesis"}),
    ],
)
def test_a_group_trains_its_networks(group, wanted):
    names = [name.removeprefix("generator.") for name in blob(panohead=True).trainable(group)]
    networks = {
        name if (name := ".".join(n.split(".")[:2])) == "backbone.synthesis" else n.split(".")[0] for n in names
    }
    assert networks == wanted
    assert group != "default" or not any("bias" in name for name in names)


def test_what_cannot_be_is_refused():
    renderer = blob()
    with pytest.raises(UnknownNameError, match="training group"):
        renderer.trainable("mapping")
    with pytest.raises(ShapeError, match="Codes"):
        renderer.scene(torch.zeros(1, 3, 512))
    with pytest.raises(ConfigError, match="psi"):
        Look(psi=1.5)
    with pytest.raises(ConfigError, match="background"):
        Look(background="black")


def test_the_defaults_of_a_run_are_the_cameras_that_the_checkpoint_knows():
    heads = TriplaneRenderer(architecture()).defaults
    assert (heads.front.yaw, heads.around.yaw) == (60, 60)  # EG3D's heads have no backs
    assert TriplaneRenderer(architecture(panohead=True)).defaults.around.yaw == 180
    car = replace(architecture(), camera_radius=1.7, camera_focal=1.7074, white_back=True)
    defaults = TriplaneRenderer(car).defaults
    assert (defaults.front.radius, defaults.front.focal, defaults.around.yaw) == (1.7, 1.7074, 180)


def test_a_camera_of_another_lens_sees_a_larger_head():
    renderer = blob(look=Look(background="none"))
    scene = renderer.scene(renderer.codes_of_seeds([0]))
    wide, near = (
        renderer.render(scene, Cameras(cameras(0.0).cam2world, pinhole(f, torch.zeros(1))[None, None]), upto="raw")
        for f in (3.5, 4.5)
    )
    assert near.opacity.mean() > 1.2 * wide.opacity.mean()


@FAMILIES
def test_a_mesh_is_the_surface_that_pictures_show(panohead):
    """Its vertices lie where the density passes the official level; colours are those of an opaque ray there."""
    renderer = blob(panohead=panohead)
    scene = renderer.scene(renderer.codes_of_seeds([0]))
    found = extract_mesh(renderer, scene, resolution=40)
    solid = trimesh.Trimesh(found.vertices, found.faces, process=False)
    assert solid.is_watertight and solid.volume > 0
    with torch.no_grad():
        raw, _ = renderer.generator.field(scene["planes"])(torch.from_numpy(found.vertices)[None])
        colours = renderer.query(scene, torch.from_numpy(found.vertices)[None])[1][0]
    inside = np.abs(found.vertices[:, [0, 2]]).max(1) < 0.4 - 1 / 39  # elsewhere PanoHead's crop cuts it
    assert raw[0][torch.from_numpy(inside)].median() == pytest.approx(10, abs=1.0)
    assert abs(found.colours / 255 - (colours.clamp(-1, 1).numpy() + 1) / 2).max() < 0.02


def test_panohead_has_nothing_in_its_crop():
    renderer = blob(panohead=True)
    scene = renderer.scene(renderer.codes_of_seeds([0]))
    points = torch.tensor([[[0.45, 0.0, 0.0], [0.0, 0.0, -0.45], [0.0, 0.45, 0.0]]])
    renderer.generator.decoder.net[2].bias[0] = 20  # dense everywhere
    assert (renderer.query(scene, points)[0] > 1).tolist() == [[False, False, True]]


def test_low_rank_changes_are_nothing_at_first_and_few(monkeypatch):
    renderer = blob()
    codes, seen = renderer.codes_of_seeds([0]), cameras(10.0)
    official = set(renderer.generator.state_dict())
    before = renderer.render(renderer.scene(codes), seen).image
    trained = renderer.trainable("low-rank")
    assert torch.equal(renderer.render(renderer.scene(codes), seen).image, before)
    assert trained.keys() == renderer.trainable("low-rank").keys()  # added once
    assert all(torch.equal(p, q) for p, q in zip(trained.values(), blob().trainable("low-rank").values()))
    assert set(renderer.generator.state_dict()) - official == {n.removeprefix("generator.") for n in trained}
    assert not any("low_rank" in name for name in renderer.trainable("default"))
    full = sum(
        p.numel() for n, p in renderer.trainable("default").items() if n.endswith(("conv0.weight", "conv1.weight"))
    )
    assert sum(p.numel() for p in trained.values()) < 0.6 * full  # small layers: of 512 channels it is 2 %
    for parameter in trained.values():
        parameter.requires_grad_(True)
    changed = torch.autograd.grad(
        renderer.render(renderer.scene(codes), seen).image.square().sum(), list(trained.values())
    )
    assert all(g.abs().max() > 0 for n, g in zip(trained, changed) if n.endswith("up"))
    with torch.no_grad():
        for parameter, gradient in zip(trained.values(), changed):
            parameter -= 1e-3 * gradient.sign()
    assert (renderer.render(renderer.scene(codes), seen).image - before).abs().max() > 1e-3


@pytest.mark.parametrize("group", ["low-rank", "decoder"])
def test_a_run_trains_its_group_alone_and_comes_back_with_it(group, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    write_pickle(blob(neural_resolution=16, samples=6), tmp_path / "blob.pkl")
    config = DistillConfig(
        probe=0,
        style="zombie",
        backbone="eg3d",
        weights=str(tmp_path / "blob.pkl"),
        scorer="tiny",
        steps=2,
        train=group,
    )
    folder = distill(config, tmp_path / "run")
    stylised = load(folder)
    original = stylised.original
    before, after = original.state_dict(), stylised.state_dict()
    differ = {n for n in after if n not in before or not torch.equal(after[n], before[n])}
    word = {"low-rank": ".low_rank.", "decoder": "decoder."}[group]
    assert differ and all(word in name for name in differ)
    codes = original.codes_of_seeds([0])
    assert not torch.equal(*(r.render(r.scene(codes), cameras(0.0)).image for r in (original, stylised)))


@FAMILIES
def test_a_run_on_a_converted_checkpoint_leaves_a_report(panohead, tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    write_pickle(blob(panohead=panohead, neural_resolution=16, samples=6), tmp_path / "blob.pkl")
    family = "panohead" if panohead else "eg3d"
    config = DistillConfig(
        probe=0, style="zombie", backbone=family, weights=str(tmp_path / "blob.pkl"), scorer="tiny", steps=2, lr=1e-3
    )
    folder = distill(config, tmp_path / "run")
    assert {"report.html", "sheet.png", "turntable.webp", "weights.safetensors"} <= {p.name for p in folder.iterdir()}
    stylised = load(folder)
    original = stylised.original
    before, after = original.state_dict(), stylised.state_dict()
    differ = {name for name in before if not torch.equal(before[name], after[name])}
    assert differ == set(original.trainable())
    assert "NVIDIA" in (folder / "licences.json").read_text()


def test_an_unknown_group_is_said_before_anything_is_trained(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTILL3D_CACHE", str(tmp_path / "cache"))
    write_pickle(blob(), tmp_path / "blob.pkl")
    config = DistillConfig(
        probe=0, style="zombie", backbone="eg3d", weights=str(tmp_path / "blob.pkl"), scorer="tiny", train="decoders"
    )
    with pytest.raises(UnknownNameError, match="Did you mean 'decoder'"):
        distill(config, tmp_path / "run")


@pytest.mark.slow
def test_compiled_super_resolution_is_the_same_with_its_gradients():
    found = []
    for look in (Look(), Look(compiled=True)):
        renderer = blob(look=look, neural_resolution=16, samples=6)
        weights = {n: p.requires_grad_(True) for n, p in renderer.trainable().items()}
        scene = renderer.scene(renderer.codes_of_seeds([0]))
        picture = renderer.render(scene, cameras(10.0)).image
        found.append([picture, *torch.autograd.grad(picture.square().sum(), list(weights.values()))])
    for one, same in zip(*found):
        assert (one - same).norm() <= 1e-3 * one.norm()


def test_limits_by_the_box_do_not_depend_on_how_many_rays_go_at_once():
    pictures = []
    for rays in (4096, 50):
        renderer = blob(look=Look(rays_at_once=rays), neural_resolution=24, samples=8)
        renderer.generator.architecture = replace(renderer.architecture, near=None, far=None)
        with torch.no_grad():
            scene = renderer.scene(renderer.codes_of_seeds([0]))
            wide = Cameras(cameras(20.0).cam2world, pinhole(1.0, torch.zeros(1))[None, None])  # most rays miss the box
            pictures.append(renderer.render(scene, wide, upto="raw"))
    for name, picture in pictures[0].tensors().items():
        torch.testing.assert_close(pictures[1].tensors()[name], picture, atol=1e-5, rtol=1e-5)


def test_rays_that_meet_nothing_leave_the_gradient_of_depth_finite():
    renderer = blob(panohead=True, neural_resolution=16, samples=6)
    weights = {name: p.requires_grad_(True) for name, p in renderer.trainable().items()}
    wide = Cameras(cameras(0.0).cam2world, pinhole(2.0, torch.zeros(1))[None, None])
    picture = renderer.render(renderer.scene(renderer.codes_of_seeds([0])), wide, upto="raw")
    assert (picture.opacity == 0).any()
    gradients = torch.autograd.grad(picture.depth.sum(), list(weights.values()), allow_unused=True)
    assert all(g.isfinite().all() for g in gradients if g is not None)


def test_without_noise_the_background_has_none_either():
    renderer = blob(panohead=True, look=Look(noise="none"))
    codes = renderer.codes_of_seeds([0])
    before = renderer.scene(codes)["background"]
    with torch.no_grad():
        for layer in (renderer.generator.bcg_synthesis.b8.conv1, renderer.generator.backbone.synthesis.b8.conv1):
            layer.noise_strength.fill_(3.0)
    assert torch.equal(renderer.scene(codes)["background"], before)


def test_seeds_that_numpy_does_not_know_are_refused():
    with pytest.raises(ConfigError, match="A seed of EG3D"):
        blob().codes_of_seeds([-1])
