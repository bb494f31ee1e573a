"""Every option that a checkpoint may have: the fast form renders what the literal one does."""

import pytest
import torch
from heads import official_options

from distill3d.cameras import orbit
from distill3d.errors import WeightsError
from distill3d_eg3d.architecture import UPSCALERS, architecture_of
from distill3d_eg3d.renderer import Look, TriplaneRenderer

SMALL = {"depth_resolution": 5, "depth_resolution_importance": 4}
VARIANTS = {
    "second pass off": (False, {"depth_resolution_importance": 0}, {}),
    "disparity": (False, {"disparity_space_sampling": True}, {}),
    "limits by the box": (False, {"ray_start": "auto", "ray_end": "auto"}, {}),
    "white behind": (False, {"white_back": True}, {}),
    "no antialias": (False, {"sr_antialias": False}, {}),
    "one channel at the largest size": (False, {}, {"channel_base": 256}),
    "no clamp": (False, {}, {"sr_num_fp16_res": 0}),
    "eight layers of mapping": (False, {}, {"mapping_kwargs": {"num_layers": 8}}),
    "sigmoid colours": (True, {"decoder_activation": "sigmoid"}, {}),
    "leaky colours": (True, {"decoder_activation": "lrelu"}, {}),
    "first features as picture": (True, {"use_torgb_raw": False}, {}),
    "no background": (True, {"use_background": False}, {}),
    "one slice": (True, {"triplane_depth": 1}, {}),
    "no crop": (True, {"triplane_crop": 0}, {}),
    "small planes": (True, {"triplane_size": 16}, {}),
    "learning rate of the decoder": (False, {"decoder_lr_mul": 0.5}, {}),
    "super-resolution with noise": (False, {"superresolution_noise_mode": "const"}, {}),
    **{
        f"super-resolution {name}": (
            False,
            {"superresolution_module": f"training.superresolution.SuperresolutionHybrid{name}"},
            {"img_resolution": {"8XDC": 512, "8X": 512, "4X": 256, "Deepfp32": 256, "2X": 128}[name]},
        )
        for name in UPSCALERS
    },
}


LARGE = ("super-resolution 8XDC", "super-resolution 8X")  # 512 px


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in VARIANTS])
@torch.no_grad()
def test_the_fast_form_is_the_literal_one(name):
    panohead, rendering_changes, init_changes = VARIANTS[name]
    init, rendering = official_options(panohead=panohead)
    architecture = architecture_of(
        {**init, "channel_max": 4, **init_changes},
        {**rendering, **SMALL, **rendering_changes},
        8,
        None,
        panohead=panohead,
    )
    torch.manual_seed(0)
    fast, literal = (TriplaneRenderer(architecture, Look(psi=0.9), reference=r) for r in (False, True))
    literal.load_state_dict(fast.state_dict())
    codes, yaw = fast.codes_of_seeds([1]), torch.tensor([[0.3]])
    pictures = [r.render(r.scene(codes), orbit(yaw, 0 * yaw)).tensors() for r in (fast, literal)]
    assert pictures[0]["image"].shape == (1, 1, 3, architecture.image_size, architecture.image_size)
    for key, picture in pictures[0].items():
        assert picture.isfinite().all()
        torch.testing.assert_close(picture, pictures[1][key], atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("rendering_changes", "init_changes", "said"),
    [
        ({"superresolution_module": "training.superresolution.Another"}, {}, "Another"),
        ({"clamp_mode": "relu"}, {}, "clamp_mode"),
        ({}, {"img_resolution": 256}, "2X makes pictures of 128 pixels, not 256"),
        ({"box_warp": None}, {}, "does not describe"),
        ({"box_warp": 0}, {}, "a side of 0"),
        ({"superresolution_noise_mode": "random"}, {}, "upscaler_noise of the checkpoint is 'random'"),
        ({}, {"w_dim": 256}, "w_dim of the checkpoint is 256"),
        ({}, {"channel_base": 128}, "channel_base of the checkpoint is 128"),
        ({}, {"channel_max": 0}, "channel_max of the checkpoint is 0"),
        ({}, {"mapping_kwargs": None}, "does not describe"),
        ({}, {"mapping_kwargs": {"num_layers": 0}}, "mapping_layers"),
    ],
)
def test_options_that_no_published_checkpoint_has_are_refused_by_name(rendering_changes, init_changes, said):
    init, rendering = official_options()
    with pytest.raises(WeightsError, match=said):
        architecture_of({**init, **init_changes}, {**rendering, **rendering_changes}, 32, None, panohead=False)


def test_axes_that_are_no_permutation_and_a_missing_option_are_refused():
    init, rendering = official_options()
    with pytest.raises(WeightsError, match="plane axes"):
        architecture_of(init, rendering, 32, torch.rand(3, 3, 3), panohead=False)
    del rendering["depth_resolution"]
    with pytest.raises(WeightsError, match="depth_resolution"):
        architecture_of(init, rendering, 32, None, panohead=False)


def test_the_axes_of_a_checkpoint_are_read_from_its_matrices():
    """The published mistake, and what it should have been."""
    init, rendering = official_options()
    released = [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[1, 0, 0], [0, 0, 1], [0, 1, 0]], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]]
    mended = [*released[:2], [[0, 0, 1], [0, 1, 0], [1, 0, 0]]]
    axes = [architecture_of(init, rendering, 32, m, panohead=False).plane_axes for m in (None, released, mended)]
    assert axes == [((0, 1), (0, 2), (2, 0))] * 2 + [((0, 1), (0, 2), (2, 1))]
