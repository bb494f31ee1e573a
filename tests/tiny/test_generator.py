import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.errors import ShapeError, UnknownNameError, WeightsError
from distill3d.tiny.generator import (
    BACKGROUND,
    BACKGROUND_DEPTH,
    TinyArchitecture,
    TinyTriplane,
    load_tiny,
    save_tiny,
)
from distill3d.volume import composite_samples, pixel_rays

SMALL = TinyArchitecture(
    style_size=16, channels=(16, 12, 8), plane_channels=4, decoder_hidden=8, features=2, residual_hidden=8, raw_size=16
)


@pytest.fixture
def renderer() -> TinyTriplane:
    torch.manual_seed(0)
    made = TinyTriplane(SMALL)
    for parameter in made.superresolution.parameters():
        torch.nn.init.normal_(parameter)  # it begins with a zero residual, which would hide its gradients
    return made


def cameras(subjects: int = 2, views: int = 3):
    angles = torch.linspace(-1, 2, subjects * views).view(subjects, views)
    return orbit(angles, 0.2 * angles)


DRAWS = Draws(seed=1, step=0, subjects=(0, 1))


def test_a_render_has_the_promised_shapes_and_ranges(renderer):
    codes = renderer.sample_codes(DRAWS)
    assert codes.shape == (2, *renderer.code_shape)
    scene = renderer.scene(codes)
    assert {len(tensor) for tensor in scene.values()} == {2}
    render = renderer.render(scene, cameras())
    assert render.raw.shape == (2, 3, 3, 16, 16)
    assert render.depth.shape == render.opacity.shape == (2, 3, 1, 16, 16)
    assert render.image is not None
    assert render.image.shape == (2, 3, 3, renderer.image_size, renderer.image_size)
    assert render.raw.abs().max() <= 1.003
    assert 0 <= render.opacity.min() < 0.01 < render.opacity.max() <= 1 + 1e-6
    assert all(picture.isfinite().all() for picture in render.tensors().values())


def test_upto_raw_leaves_the_image_out_and_the_raw_picture_as_it_was(renderer):
    scene = renderer.scene(renderer.sample_codes(DRAWS))
    raw = renderer.render(scene, cameras(), upto="raw")
    assert raw.image is None
    assert torch.equal(raw.raw, renderer.render(scene, cameras()).raw)


def test_equal_draws_give_an_equal_picture_and_others_another(renderer):
    scene = renderer.scene(renderer.sample_codes(DRAWS))
    first, again, other, none = (
        renderer.render(scene, cameras(), draws=d).raw for d in (DRAWS, DRAWS, DRAWS.scoped("other view"), None)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, none)


def test_a_subject_looks_the_same_alone_and_in_a_batch(renderer):
    """Rays that miss the hull are dropped, and how many are kept depends on the batch; the picture must not."""
    codes, seen = renderer.sample_codes(DRAWS), cameras()
    together = renderer.render(renderer.scene(codes), seen)
    alone = renderer.render(renderer.scene(codes[1:]), type(seen)(seen.cam2world[1:, 2:], seen.intrinsics[1:, 2:]))
    for name, picture in alone.tensors().items():
        torch.testing.assert_close(picture, together.tensors()[name][1:, 2:], atol=1e-5, rtol=1e-5)


def test_rays_that_miss_the_hull_show_the_background(renderer):
    away = orbit(torch.zeros(1, 1), torch.zeros(1, 1), focal=0.3)  # wide: the corners look past everything
    render = renderer.render(renderer.scene(torch.zeros(1, 32)), away)
    for picture, expected in ((render.raw, BACKGROUND), (render.depth, BACKGROUND_DEPTH), (render.opacity, 0.0)):
        torch.testing.assert_close(picture[..., 0, 0], torch.full_like(picture[..., 0, 0], expected))


def test_tracing_equals_a_plain_sum_over_all_samples(renderer):
    """The slow reference: every ray alone, no ray dropped, no half of the samples crowded out of order."""
    planes = renderer.scene(renderer.sample_codes(DRAWS))["planes"][:1]
    origins, directions = (x[0, :1] for x in pixel_rays(cameras(1, 1), 16, 16))
    values, depth, opacity = renderer.trace(planes, origins, directions)
    near, far = renderer._interval(origins, directions)
    start, width = renderer._cells(planes)
    ray = int((near < far)[0].nonzero()[40])
    length = far[0, ray] - near[0, ray]
    t = near[0, ray] + length * (start + width / 2)
    density, found = renderer.look_up(planes, (origins[0, ray] + t[:, None] * directions[0, ray])[None])
    expected = composite_samples(t, length * width, density[0], found[0].T)
    torch.testing.assert_close(opacity[0, 0, ray], expected.opacity[0])
    torch.testing.assert_close(values[0, :3, ray], expected.values[:3] + (1 - expected.opacity) * BACKGROUND)
    torch.testing.assert_close(depth[0, 0, ray], (expected.depth + (1 - expected.opacity) * BACKGROUND_DEPTH)[0])
    torch.testing.assert_close(width.sum(), torch.tensor(1.0))
    torch.testing.assert_close(start[1:], (start + width)[:-1])


@pytest.mark.parametrize(
    ("group", "frozen"), [("default", ("mapping", "superresolution")), ("superresolution", ("mapping",))]
)
def test_a_group_leaves_out_what_it_says_and_gradient_reaches_every_tensor_of_it(renderer, group, frozen):
    trained = renderer.trainable(group)
    assert set(renderer.state_dict()) - set(trained) == {n for n in renderer.state_dict() if n.startswith(frozen)}
    render = renderer.render(renderer.scene(renderer.sample_codes(DRAWS)), cameras())
    assert render.image is not None
    gradients = torch.autograd.grad(render.image.square().sum(), list(trained.values()))
    assert all(g.abs().sum() > 0 for g in gradients)


def test_groups_are_nested_and_an_unknown_one_is_named(renderer):
    groups = ("decoder", "default", "superresolution", "all")
    decoder, default, larger, everything = (set(renderer.trainable(group)) for group in groups)
    assert decoder < default < larger < everything == set(renderer.state_dict())
    with pytest.raises(UnknownNameError, match=r"No training group is called 'decodr'.*Did you mean 'decoder'"):
        renderer.trainable("decodr")


def test_the_gradient_with_respect_to_the_planes_is_that_of_finite_differences(renderer):
    renderer = renderer.double()
    scene = {name: tensor.detach() for name, tensor in renderer.scene(renderer.sample_codes(DRAWS)).items()}
    direction = torch.randn_like(scene["planes"], generator=None)
    planes = scene["planes"].requires_grad_()

    def brightness(planes):
        return renderer.render({**scene, "planes": planes}, cameras(), upto="raw").raw.square().sum()

    (slope,) = torch.autograd.grad(brightness(planes), planes)
    step = 1e-5
    with torch.no_grad():
        change = (brightness(planes + step * direction) - brightness(planes - step * direction)) / (2 * step)
    torch.testing.assert_close((slope * direction).sum(), change, rtol=1e-5, atol=1e-6)


def test_scene_and_cameras_must_agree_on_the_subjects(renderer):
    scene = renderer.scene(renderer.sample_codes(DRAWS))
    with pytest.raises(ShapeError, match="2 subjects"):
        renderer.render(scene, cameras(3, 1))
    with pytest.raises(ShapeError, match=r"\(S, 32\)"):
        renderer.scene(torch.zeros(2, 31))


def test_weights_are_stored_in_half_and_loaded_in_full_precision(renderer, tmp_path):
    path = tmp_path / "generator.safetensors"
    save_tiny(renderer, path)
    assert {tensor.dtype for tensor in load_file(path).values()} == {torch.float16}
    loaded = load_tiny(str(path))
    assert loaded.architecture == renderer.architecture
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, renderer.state_dict()[name].half().float())
    assert list(tmp_path.iterdir()) == [path]


def test_saving_what_was_loaded_gives_the_same_file(renderer, tmp_path):
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_tiny(renderer, first)
    save_tiny(load_tiny(str(first)), second)
    assert first.read_bytes() == second.read_bytes()


def test_a_missing_file_is_named_with_advice(tmp_path):
    with pytest.raises(WeightsError, match=r"no weight file .*absent\.safetensors.*Give the path"):
        load_tiny(str(tmp_path / "absent.safetensors"))


@pytest.mark.parametrize("damage", ["cut short", "no safetensors", "tensor missing", "foreign", "odd architecture"])
def test_a_damaged_file_is_named_with_advice(renderer, tmp_path, damage):
    path = tmp_path / "generator.safetensors"
    save_tiny(renderer, path)
    tensors, whole = load_file(path), path.read_bytes()
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    if damage == "cut short":
        path.write_bytes(whole[: len(whole) // 2])
    elif damage == "no safetensors":
        path.write_bytes(b"PK\x03\x04 something else altogether")
    elif damage == "tensor missing":
        save_file(dict(list(tensors.items())[1:]), path, metadata)
    elif damage == "foreign":
        save_file(tensors, path, {"format": "pt"})
    else:
        save_file(tensors, path, {key: json.dumps({"architecture": {"colour": "blue"}}) for key in metadata})
    with pytest.raises(WeightsError, match=r"generator\.safetensors.*Give the path"):
        load_tiny(str(path))


def test_the_full_size_fits_in_three_megabytes_of_half_precision():
    assert sum(p.numel() for p in TinyTriplane().parameters()) <= 1.6e6
