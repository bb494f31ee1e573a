"""The networks against numbers of the official ones; every quirk that they reproduce is seen in those numbers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import distill3d_eg3d.observations as observations
import distill3d_eg3d.volume as volume
from distill3d.cameras import from_label
from distill3d.draws import Draws
from distill3d.volume import XY_XZ_ZY, blurred, mean_depth, sample_histogram
from distill3d_eg3d.architecture import architecture_of
from distill3d_eg3d.generator import Generator
from distill3d_eg3d.observations import observe
from distill3d_eg3d.parity import Case, compare, load_case, main
from distill3d_eg3d.renderer import Look, TriplaneRenderer

HERE = Path(__file__).parent / "goldens"
SHARED = Path(__file__).parents[4] / "shared" / "parity" / "eg3d"  # beside the checkout, where there is one
LARGE = ("eg3d_A_256", "eg3d_A_512", "eg3d_A_auto", "panohead_A_512")


def path_of(name):
    for folder in (HERE, SHARED):
        if (folder / f"{name}.json").is_file():
            return folder / f"{name}.json"
    pytest.skip(f"the reference data {name} is not in ../shared/parity/eg3d")


def without_gradients(case: Case) -> Case:
    return replace(case, tensors={n: t for n, t in case.tensors.items() if not n.startswith(("grad", "loss"))})


def outside(case):
    """Names of the tensors that are not within their limits."""
    return {line.name for line in compare(case, observe(case)) if not line.ok}


@pytest.mark.parametrize("reference", [False, True], ids=["fast", "literal"])
@pytest.mark.parametrize("name", ["eg3d_A_128", "eg3d_A_nrr64", "panohead_A_128"])
def test_outputs_what_lies_between_and_gradients_are_the_official_ones(name, reference):
    case = load_case(path_of(name), reference=reference)
    if reference:
        case = without_gradients(case)
    assert outside(case) == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", LARGE)
def test_so_are_those_of_the_other_cases(name):
    assert outside(load_case(path_of(name))) == set()


def test_the_command_prints_a_line_for_each_tensor_and_its_last_line_counts(capsys):
    path = path_of("eg3d_A_nrr64")
    assert main([str(path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    wanted = {name for name in load_case(path).tensors if not name.startswith("input.")}
    assert {line.split()[0] for line in lines[1:-1]} == wanted
    assert lines[-1] == f"{len(wanted)} of {len(wanted)} tensors within limits"


def test_a_tensor_outside_of_its_limit_fails_the_command(capsys, monkeypatch):
    monkeypatch.setattr(
        Generator, "field", lambda self, planes: lambda points: (points[..., 0], points[..., :1] * torch.ones(32))
    )
    assert main([str(path_of("eg3d_A_nrr64"))]) == 1
    said = capsys.readouterr().out
    assert "FAILED" in said
    assert not said.splitlines()[-1].startswith("51 of 51")


def changed(name, **options):
    """A case whose network has other options than its checkpoint says."""
    case = without_gradients(load_case(path_of(name)))
    case.generator.architecture = replace(case.generator.architecture, **options)
    return case


def test_planes_that_span_three_pairs_of_axes_are_not_what_the_weights_know():
    assert "points_sigma" in outside(changed("eg3d_A_128", plane_axes=XY_XZ_ZY))


def test_the_third_grid_of_panohead_spans_y_z_x_and_no_other_order():
    assert "points_sigma" in outside(changed("panohead_A_128", plane_axes=((0, 1, 2), (0, 2, 1), (2, 1, 0))))


def test_a_checkpoint_without_a_label_scale_tells_its_mapping_no_camera():
    notes = load_case(path_of("panohead_A_128")).notes
    rendering = {key: value for key, value in notes["rendering_kwargs"].items() if key != "c_scale"}
    bare = architecture_of(notes["G_kwargs"], rendering, 32, None, panohead=True)
    assert bare.label_scale == 0
    assert "ws" in outside(changed("panohead_A_128", label_scale=bare.label_scale))


def test_bins_that_are_not_shifted_sample_elsewhere(monkeypatch):
    def unshifted(t, weights, u):
        edges = ((t[..., 1:] + t[..., :-1]) / 2)[..., 1:]
        return sample_histogram(edges, blurred(weights)[..., 1:-1], u)

    monkeypatch.setattr(volume, "importance", unshifted)
    found = outside(changed("eg3d_A_128"))
    assert "depths_fine" in found
    assert "depths_coarse" not in found


def test_without_the_crop_there_is_density_near_the_walls():
    found = outside(changed("panohead_A_128", crop=None))
    assert {"w_coarse", "render_wsum", "image_mask"} <= found
    assert "points_sigma" not in found  # a query of the field is never cropped


@pytest.mark.parametrize("name", ["eg3d_A_128", "panohead_A_128"])
def test_colours_that_are_not_brought_to_minus_one_differ(name):
    assert "image_raw" in outside(changed(name, decoder_activation="none"))


def test_a_density_whose_activation_is_not_shifted_differs(monkeypatch):
    monkeypatch.setattr(volume, "density_of", torch.nn.functional.softplus)
    found = outside(changed("eg3d_A_128"))
    assert {"w_coarse", "render_wsum"} <= found
    assert "points_sigma" not in found


def test_a_clamp_is_at_its_limit_and_not_below():
    """No reference data reaches 256; at a hundredth of it the pictures would differ."""
    case = without_gradients(load_case(path_of("eg3d_A_nrr64")))
    blocks = (case.generator.superresolution.block0, case.generator.superresolution.block1)
    layers = [layer for block in blocks for layer in (block.conv0, block.conv1, block.torgb)]
    assert {layer.clamp for layer in layers} == {256.0}
    for layer in layers:
        layer.clamp = 0.7
    assert "image" in outside(case)


def test_depth_is_held_within_what_was_sampled_and_is_the_farthest_of_it_where_there_is_nothing():
    """No reference data has a ray that meets nothing."""
    depth, opacity = torch.tensor([0.0, 2.4, 1.0, 9.0]), torch.tensor([0.0, 1.0, 1.0, 1.0])
    found = mean_depth(depth, opacity, torch.tensor(2.0), torch.tensor(3.0))
    assert found.tolist() == pytest.approx([3.0, 2.4, 2.0, 3.0])


def test_the_official_raw_picture_was_altered_by_super_resolution_and_ours_is_not(monkeypatch):
    case = changed("eg3d_A_nrr64")
    assert outside(case) == set()
    monkeypatch.setattr(observations, "_pollutes", lambda generator, raw: False)
    assert outside(case) == {"image_raw"}


def test_a_conditioning_label_that_is_not_zeroed_gives_other_codes():
    assert "ws" in outside(changed("eg3d_A_128", label_zero=False))


def test_without_white_behind_it_a_car_differs():
    assert "render_rgb" in outside(changed("eg3d_A_128", white_back=False))


@pytest.mark.parametrize("name", ["eg3d_A_128", "panohead_A_128", "panohead_A_512"])
def test_the_backbone_renders_the_official_pictures(name):
    """`TriplaneRenderer` from the case's codes and cameras, its random numbers those of the case."""
    case = load_case(path_of(name))
    renderer = TriplaneRenderer(case.generator.architecture, Look(noise=case.notes["call"]["noise_mode"])).eval()
    renderer.generator.load_state_dict(case.generator.state_dict())
    given = {name: case.tensors[f"input.{name}"] for name in ("c", "u_coarse", "u_fine")}
    subjects, rays = given["u_coarse"].shape[:2]

    class Given(Draws):
        def uniform(self, name, *shape):
            numbers = given["u_coarse" if name == "jitter" else "u_fine"].reshape(subjects, rays, -1)
            return numbers[list(self.subjects)]

    with torch.no_grad():
        scene = renderer.scene(case.tensors["ws"])
        cameras = from_label(given["c"][:, None])
        picture = renderer.render(scene, cameras, draws=Given(0, 0, tuple(range(subjects))))
    image = {"image": picture.image[:, 0], "image_stride4": picture.image[:, 0, :, 2::4, 2::4]}
    found = {**image, "image_raw": picture.raw[:, 0], "image_depth": picture.depth[:, 0]}
    checked = {line.name: line for line in compare(case, found) if line.name in found}
    assert {"image_raw", "image_depth"} < checked.keys()
    assert all(line.ok for line in checked.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"call": {"noise_mode": "random"}}, "noise_mode 'random' cannot be repeated"),
        ({"salt": "another"}, "the weights are not those"),
        ({"rendering_kwargs": {}}, "does not describe"),
    ],
)
def test_a_case_that_cannot_be_compared_says_why_and_fails(change, said, tmp_path, capsys):
    path = path_of("eg3d_A_128")
    notes = json.loads(path.read_text())
    (tmp_path / "x.json").write_text(json.dumps({**notes, **change}))
    (tmp_path / "x.safetensors").write_bytes(path.with_suffix(".safetensors").read_bytes())
    assert main([str(tmp_path / "x.json"), str(tmp_path / "missing.json")]) == 1
    printed = capsys.readouterr().out
    assert said in printed
    assert "missing.json cannot be compared" in printed
    assert printed.splitlines()[-1] == "0 of 2 tensors within limits"
