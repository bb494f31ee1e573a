"""Small generators that show something: a solid, asymmetric, coloured blob instead of the fog of random weights."""

import torch
from pickle_writer import dumped, persistent, snapshot

from distill3d_eg3d.architecture import FEATURES, architecture_of
from distill3d_eg3d.networks import Block
from distill3d_eg3d.renderer import Look, TriplaneRenderer, average_camera_label

DENSITY, COLOURS = 0, (1, 2, 3)  # channels of the planes


def official_options(*, panohead=False, samples=16):
    """What an official checkpoint of a small generator says of itself: its making, and its rendering."""
    rendering = {
        "superresolution_module": "training.superresolution.SuperresolutionHybrid2X",
        "depth_resolution": samples,
        "depth_resolution_importance": samples,
        "ray_start": 2.0,
        "ray_end": 3.8,  # so that a camera that stands farther away still sees the whole
        "box_warp": 1,
        "c_scale": 1,
        "avg_camera_radius": 2.7,
        "avg_camera_pivot": [0, 0, 0.2],
    }
    if panohead:
        rendering |= {
            "triplane_size": 64,
            "triplane_depth": 3,
            "use_torgb_raw": True,
            "use_background": True,
            "decoder_activation": "none",
        }
    init = {
        "z_dim": 16,
        "w_dim": 512,
        "c_dim": 25,
        "img_resolution": 128,
        "channel_base": 1024,
        "channel_max": 24,
        "sr_num_fp16_res": 4,
        "mapping_kwargs": {"num_layers": 2},
    }
    return init, rendering


def architecture(*, panohead=False, neural_resolution=32, samples=16):
    """128 px, at most 24 channels; EG3D's plane size cannot be chosen."""
    return architecture_of(
        *official_options(panohead=panohead, samples=samples), neural_resolution, None, panohead=panohead
    )


def write_pickle(renderer, path):
    """An official training snapshot with this generator as its G_ema."""
    a, network = renderer.architecture, renderer.generator
    init, rendering = official_options(panohead=a.family == "panohead", samples=a.samples)
    state = {name: network.__dict__[name] for name in ("_parameters", "_buffers", "_modules", "training")}
    state |= {
        "_init_args": (),
        "_init_kwargs": init,
        "rendering_kwargs": rendering,
        "neural_rendering_resolution": a.neural_resolution,
    }
    path.write_bytes(dumped(snapshot(persistent("TriPlaneGenerator", state))))


def blob(*, panohead=False, look=None, **sizes):
    """A renderer of a blob with a bump on its right, red to the right, green upwards, blue to the front."""
    torch.manual_seed(0)
    renderer = TriplaneRenderer(architecture(panohead=panohead, **sizes), look or Look()).eval()
    with torch.no_grad():
        _shape(renderer)
        _decoder(renderer.generator.decoder, sigmoid=not panohead)
        if panohead:
            _raw_head(renderer.generator.torgb)
    return renderer.requires_grad_(False)


def _pictures():
    """What the first block should paint, (3, 32, 4, 4): planes (x, y), (x, z), (z, x); rows are the second axis."""
    place = (torch.arange(4) + 0.5) / 4 - 0.5
    v, u = torch.meshgrid(place, place, indexing="ij")

    def bump(across, up, wide):
        return torch.exp(-((u - across) ** 2 + (v - up) ** 2) / (2 * wide**2))

    planes = torch.zeros(3, FEATURES, 4, 4)
    planes[0, DENSITY] = bump(0.0, 0.02, 0.2) + 0.5 * bump(0.25, 0.2, 0.1)
    planes[1, DENSITY] = bump(0.02, 0.0, 0.2)
    planes[2, DENSITY] = bump(0.0, 0.0, 0.22)
    planes[0, COLOURS[0]], planes[0, COLOURS[1]], planes[1, COLOURS[2]] = 3 * u, 3 * v, 3 * v
    return planes


def _shape(renderer):
    """Everything is painted at 4x4, for the average subject; larger blocks add a little of what is their own."""
    synthesis, a = renderer.generator.backbone.synthesis, renderer.architecture
    for module in renderer.generator.modules():
        if isinstance(module, Block):
            module.torgb.weight.mul_(0.003)
    label = average_camera_label(a)
    renderer.generator.backbone.mapping.w_avg.copy_(renderer.generator.ws(torch.zeros(1, a.z_dim), label)[0, 0])
    w = renderer.generator.backbone.mapping.w_avg[None]
    block = synthesis.b4
    x = block.conv1(block.const[None], w)[0].flatten(1)  # (C, 16)
    style = block.torgb.affine(w)[0] * block.torgb.weight_gain
    wanted = _pictures()[:, :, None].expand(-1, -1, a.plane_depth or 1, -1, -1).flatten(0, 2).flatten(1)
    block.torgb.weight.copy_((wanted @ torch.linalg.pinv(x * style[:, None]))[..., None, None])


def _decoder(decoder, *, sigmoid):
    """Density where the bumps meet; colours as painted. Softplus of a large number is the number."""
    first, last = decoder.net[0], decoder.net[2]
    for layer in (first, last):
        layer.weight.mul_(0.02 / layer.weight_gain)
        layer.bias.zero_()
    first.weight[0] = 0
    first.weight[0, DENSITY] = 60 / first.weight_gain
    first.bias[0] = -30 if sigmoid else -42  # EG3D's planes are doubled more often, which flattens bumps
    last.weight[0] = 0
    last.weight[0, 0] = 10 / last.weight_gain
    last.bias[0] = -8
    for unit, channel in enumerate(COLOURS, start=1):
        first.weight[unit] = 0
        first.weight[unit, channel] = 1 / first.weight_gain
        first.bias[unit] = 5
        last.weight[unit] = 0
        last.weight[unit, unit] = (2.0 if sigmoid else 0.6) / last.weight_gain
        last.bias[unit] = -10 if sigmoid else -3


def _raw_head(torgb):
    """The first three features are the colours."""
    torgb.weight.mul_(0.01)
    for colour in range(3):
        torgb.weight[colour, colour] = 1 / torgb.weight_gain
    torgb.affine.weight.mul_(0.05)
