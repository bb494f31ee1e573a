"""What shapes a head and what colours it: the split of the embedded generator's parameters, on a change it has learnt.

A few steps towards the true pictures of one head in a style stand for a run: the same parameters learn, at the same
rate, and the changes divide alike (`TinyTriplane.part_of` has the numbers of whole runs).
"""

import pytest
import torch

from distill3d.cameras import orbit
from distill3d.renderer import Parted
from distill3d.testing.part_checks import apart
from distill3d.tiny.generator import load_tiny
from distill3d.tiny.world import identity_from_codes, render_heads, style_rows

STEPS, SEED, OTHERS = 6, 0, (5, 6)


class Learnt:
    """A generator before and after, and what any part of its change does to heads that it has not learnt from."""

    def __init__(self, style):
        self.renderer = load_tiny().requires_grad_(False)
        trained = self.renderer.trainable()
        self.before = {name: p.detach().clone() for name, p in trained.items()}
        self.learn(style, [p.requires_grad_(True) for p in trained.values()])
        self.after = {name: p.detach().clone() for name, p in trained.items()}
        self.renderer.requires_grad_(False)
        self.original, self.whole = self.seen({}), self.seen(self.after)

    def learn(self, style, parameters):
        codes, cameras = self.renderer.codes_of_seeds([SEED]), views(0.0, 0.8)
        pictures, _, _ = render_heads(identity_from_codes(codes), style_rows([style]), cameras, 64, samples=1)
        steps = torch.optim.Adam(parameters, lr=self.renderer.defaults.lr)
        for _ in range(STEPS):
            raw = self.renderer.render(self.renderer.scene(codes), cameras, upto="raw").raw
            steps.zero_grad()
            (raw - (2 * pictures - 1)).square().mean().backward()
            steps.step()

    def seen(self, change):
        self.renderer.load_state_dict({**self.before, **change}, strict=False)
        scene = self.renderer.scene(self.renderer.codes_of_seeds(OTHERS))
        return self.renderer.render(scene, views(0.4, -1.0, subjects=len(OTHERS)), upto="raw")

    def only(self, wanted):
        """The pictures with the change of these parameters alone."""
        return self.seen({name: value for name, value in self.after.items() if wanted(name)})

    def part(self, part):
        return self.only(lambda name: self.renderer.part_of(name) == part)

    def moved(self, pictures, beside):
        """How far depth and colour of the solid lie from those of other pictures, in parts of the whole change."""
        return tuple(apart(pictures, beside, of) / apart(self.whole, self.original, of) for of in ("depth", "raw"))


def views(*yaw, subjects=1):
    angles = torch.tensor(yaw).expand(subjects, -1)
    return orbit(angles, torch.full_like(angles, 0.1))


@pytest.fixture(scope="module", params=["zombie", "pixar"])
def learnt(request):
    return Learnt(request.param)


def test_texture_alone_colours_a_head_and_hardly_moves_its_surface(learnt):
    depth, colour = learnt.moved(learnt.part("texture"), learnt.original)
    assert depth < 0.1
    assert colour > 0.25
    assert colour > 4 * depth


def test_geometry_alone_gives_the_whole_change_of_shape_and_only_a_part_of_the_colour(learnt):
    """To be told from a split that calls everything geometry by the colour that it lacks."""
    depth, colour = learnt.moved(learnt.part("geometry"), learnt.whole)
    assert depth < 0.1
    assert colour > 0.25


def test_texture_alone_keeps_the_surface_nearer_to_the_original_than_geometry_alone_does(learnt):
    texture, geometry = (learnt.moved(learnt.part(part), learnt.original) for part in ("texture", "geometry"))
    assert geometry[0] > 10 * texture[0]


def test_of_all_layers_that_colour_the_decoder_s_last_moves_the_surface_least_for_it(learnt):
    by_layer = {
        one: learnt.moved(learnt.only(lambda name: layer(name) == one), learnt.original)  # noqa: B023
        for one in {layer(name) for name in learnt.after}
    }
    ratios = {one: colour / depth for one, (depth, colour) in by_layer.items() if colour > 0.1}
    assert len(ratios) > 3
    assert max(ratios, key=ratios.__getitem__) == "decoder.second"
    # Late layers are no texture, as they are in generators of pictures.
    for late in ("synthesis.layers.7", "synthesis.layers.8"):
        depth, colour = by_layer[late]
        assert depth > colour


def layer(name):
    """ "synthesis.layers.3", "decoder.first"."""
    parts = name.split(".")
    return ".".join(parts[: 3 if parts[1] == "layers" else 2])


def test_every_parameter_belongs_to_a_part_and_super_resolution_is_texture():
    renderer = load_tiny()
    assert isinstance(renderer, Parted)
    parts = {name: renderer.part_of(name) for name, _ in renderer.named_parameters()}
    assert set(parts.values()) == {"geometry", "texture"}
    assert {parts[name] for name in parts if name.startswith("superresolution.")} == {"texture"}
    assert {parts[name] for name in parts if name.startswith(("mapping.", "synthesis."))} == {"geometry"}
