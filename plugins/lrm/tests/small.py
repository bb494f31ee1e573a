"""Small checkpoints of both models that show something, and photos to give them.

Random weights are a fog. These hold a solid egg, off the middle: higher than wide, red to the right, green upwards,
blue to the front, all in the canonical world. What a photo shows moves it a little, so subjects differ.
"""

import json
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

from distill3d.volume import XY_XZ_YZ, XY_XZ_ZY
from distill3d_lrm.cache import CodeCache
from distill3d_lrm.loading import KINDS
from distill3d_lrm.openlrm import OpenLRM, OpenLRMConfig
from distill3d_lrm.preparation import Preparation
from distill3d_lrm.renderer import Look, LrmRenderer
from distill3d_lrm.subjects import PhotoSubjects, Studio
from distill3d_lrm.triposr import TripoSR, TripoSRConfig

MIDDLE, HALF_AXES = (0.15, 0.1, -0.1), (0.55, 0.75, 0.45)  # of the egg, canonical x, y, z, for a box of side 2
FEATURES = 4  # of a plane: what makes density, then three colours
MOVED = 0.03  # by a photo


def triposr_config(**sizes):
    """What `config.yaml` says, as data: its sizes are small, and one is a reference."""
    config = {
        "cond_image_size": 32,
        "image_tokenizer": {"pretrained_model_name_or_path": "facebook/dino-vitb16"},
        "vit_config": {
            "hidden_size": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "image_size": 16,
            "patch_size": 8,
        },
        "tokenizer": {"plane_size": 8, "num_channels": 16},
        "backbone": {
            "in_channels": "${tokenizer.num_channels}",
            "num_attention_heads": 2,
            "attention_head_dim": 8,
            "num_layers": 3,
            "norm_num_groups": 4,
        },
        "post_processor": {"in_channels": 16, "out_channels": 5},
        "decoder": {"in_channels": 15, "n_neurons": 16, "n_hidden_layers": 2, "activation": "silu"},
        "renderer": {
            "radius": 0.87,
            "feature_reduction": "concat",
            "density_activation": "exp",
            "density_bias": -1.0,
            "num_samples_per_ray": 48,
        },
    }
    for name, value in sizes.items():
        parts = [config, *(part for part in config.values() if isinstance(part, dict))]
        next(part for part in reversed(parts) if name in part)[name] = value
    return config


def openlrm_config(**changed):
    """What `config.json` says."""
    return {
        "encoder_type": "dinov2",
        "encoder_model_name": "dinov2_vitb14_reg",
        "encoder_feat_dim": 16,
        "encoder_config": {
            "embed_dim": 16,
            "depth": 1,
            "num_heads": 2,
            "img_size": 42,
            "interpolate_antialias": True,
            "interpolate_offset": 0.0,
        },
        "camera_embed_dim": 12,
        "transformer_dim": 16,
        "transformer_heads": 2,
        "transformer_layers": 3,
        "triplane_low_res": 8,
        "triplane_high_res": 16,
        "triplane_dim": 5,
        "rendering_samples_per_ray": 32,
        "source_image_size": 28,
        "render_size": 32,
        **changed,
    }


def small_triposr(*, reference=False, **sizes):
    """The egg as a TripoSR."""
    torch.manual_seed(0)
    config = triposr_config(**sizes)
    model = TripoSR(TripoSRConfig.from_dict(config, config["vit_config"]), reference=reference).eval()
    c, layers = model.config, model.decoder.layers
    with torch.no_grad():
        model.backbone.proj_out.weight.mul_(MOVED)
        model.backbone.proj_out.bias.zero_()
        model.tokenizer.embeddings.mul_(0.1)
        model.tokenizer.embeddings[:, :FEATURES] = _painted(model, XY_XZ_YZ, c.plane_size)
        _passed_on(model.post_processor.upsample)
        # SiLU leaves large numbers as they are, and makes next to nothing of what is far below zero.
        _decoder([layers[0], *[layer for layer in layers[1:] if isinstance(layer, torch.nn.Linear)]], 8.0, -5.0)
    return model.requires_grad_(False)


def small_openlrm(*, reference=False, **changed):
    """The egg as an OpenLRM."""
    torch.manual_seed(0)
    config = openlrm_config(**changed)
    model = OpenLRM(OpenLRMConfig.from_dict(config, config["encoder_config"]), reference=reference).eval()
    c = model.config
    with torch.no_grad():
        for layer in model.transformer.layers:
            for last in (layer.cross_attn.out_proj, layer.self_attn.out_proj, layer.mlp[3]):
                last.weight.mul_(MOVED)
        painted = _painted(model, XY_XZ_ZY, c.plane_size).transpose(0, 1).flatten(1).T  # (tokens, features)
        model.pos_embed.copy_(_as_after_a_norm(painted, c.channels)[None])
        spread = model.pos_embed.square().mean(-1).sqrt()[0, 0]
        _passed_on(model.upsampler, spread)
        _decoder([layer for layer in model.decoder if isinstance(layer, torch.nn.Linear)], 10.0, -9.0)
    return model.requires_grad_(False)


MODELS = {"triposr": small_triposr, "openlrm": small_openlrm}


def _painted(model, axes, cells):
    """(3, FEATURES, cells, cells): parts of the field, whose sum over the planes is the field.

    Density is made of an eighth of 8 (1 - |x|^2), in units of the egg: positive inside.
    """
    place = (torch.arange(cells) + 0.5) / cells * 2 - 1  # in the box
    turn = torch.tensor(model.to_own)
    planes = torch.zeros(len(axes), FEATURES, cells, cells)
    for plane, own in zip(planes, axes):
        grid = torch.meshgrid(place, place, indexing="ij")
        for values, axis in zip(grid[::-1], own):  # along the width, then the height
            canonical = int(turn[axis].abs().argmax())
            values = values * turn[axis, canonical]
            distance = (values - MIDDLE[canonical]) / HALF_AXES[canonical]
            plane[0] -= distance.square() / 2  # every axis lies in two planes
            plane[1 + canonical] += values / 2
        plane[0] += 1 / 3
    return planes


def _as_after_a_norm(painted, channels):
    """(tokens, channels) of mean 0 and equal spread, the first features as they are: a norm only scales them."""
    rows = torch.cat([painted, -painted], 1)
    rest = 0.5 * (rows.square().sum(1).max() * 1.01 - rows.square().sum(1)).sqrt()[:, None]
    tokens = torch.zeros(len(rows), channels)
    tokens[:, : rows.shape[1]] = rows
    tokens[:, rows.shape[1] : rows.shape[1] + 4] = rest * torch.tensor([1.0, -1.0, 1.0, -1.0])
    return tokens


def _passed_on(upsampler, gain=1.0):
    """Four cells with a token's first features."""
    upsampler.weight.mul_(0.02)
    upsampler.weight[:FEATURES] = 0
    for feature in range(FEATURES):
        upsampler.weight[feature, feature] = gain
    upsampler.bias.zero_()


def _decoder(layers, steepness, floor):
    """Unit 0 carries density, the next three colours, on a floor that no activation cuts."""
    first, *middle, last = layers
    for layer in layers:
        layer.weight.mul_(0.05)
        layer.bias.zero_()
        layer.weight[:FEATURES] = 0
    channels = first.in_features // 3
    for unit in range(FEATURES):
        first.weight[unit, unit::channels] = 8.0 if unit == 0 else 1.0
        first.bias[unit] = 0 if unit == 0 else 5
        for layer in middle:
            layer.weight[unit, unit] = 1.0
        last.weight[unit, unit] = steepness if unit == 0 else 4.0
        last.bias[unit] = floor if unit == 0 else -20


def write_triposr(folder, model=None):
    """`config.yaml` and `model.ckpt`, as published."""
    folder = _made(folder)
    model = model or small_triposr()
    text = yaml.safe_dump(triposr_config(num_samples_per_ray=model.config.samples))
    (folder / "config.yaml").write_text(text)
    torch.save(model.state_dict(), folder / "model.ckpt")
    return folder


def write_openlrm(folder, model=None):
    """`config.json` and `model.safetensors`, as published."""
    folder = _made(folder)
    model = model or small_openlrm()
    text = json.dumps(openlrm_config(rendering_samples_per_ray=model.config.samples))
    (folder / "config.json").write_text(text)
    save_file(model.state_dict(), folder / "model.safetensors")
    return folder


WRITERS = {"triposr": write_triposr, "openlrm": write_openlrm}


def _made(folder):
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder)


def write_photos(folder, count=3):
    """Cut-outs: shaded discs of different colours and widths, each brighter on its left."""
    folder = _made(folder)
    for number in range(count):
        rows, columns = np.mgrid[:48, :40]
        inside = ((columns - 20) / (12 + 2 * number)) ** 2 + ((rows - 24) / 18) ** 2 < 1
        colour = np.full((48, 40, 3), 60.0)
        colour[..., number % 3] = 230 - 3 * columns
        pixels = np.dstack([colour, 255 * inside]).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def renderer(kind, *, subjects=None, look=None, cache=None, size=32, reference=False, **sizes):
    """A renderer of the egg.

    Args:
        subjects: folder of photos; None for the codes of a test's own.
    """
    model, of = MODELS[kind](reference=reference, **sizes), KINDS[kind]
    studio = Studio(Preparation(model.image_size, of.composite, of.resize, 0.85, of.quantised), "auto")
    people = None if subjects is None else PhotoSubjects([str(subjects)], studio)
    return LrmRenderer(model, studio, people, look or Look(), cache=cache or CodeCache(), image_size=size).eval()


def code(of, seed=0):
    """(1, 3, h, w) of any picture."""
    return torch.rand(1, *of.code_shape, generator=torch.Generator().manual_seed(seed)).to(of.turn)
