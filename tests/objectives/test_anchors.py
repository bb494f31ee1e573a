"""Anchors against their equations, written out by hand."""

from dataclasses import replace

import pytest
import torch

from distill3d.anchors import ANCHORS, anchored, input_view
from distill3d.cameras import CameraPrior
from distill3d.draws import Draws
from distill3d.errors import ConfigError
from distill3d.methods import Method, ld, sds
from distill3d.objectives.anchors import OpacityAnchor, PerceptualAnchor, PlaneVariation, SceneAnchor, falling
from distill3d.objectives.term import Needs, Side, StepBatch, Weighted
from distill3d.renderer import Render
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.training.trainer import Trainer
from distill3d.views import View, fit
from tests.toys import AnySizeToy, toy
from tests.training.test_trainer import assert_equals_one_graph

SCORER = GaussianScorer(latent_size=8, seed=4)  # pictures of 16 x 16
VIEW = View("main", CameraPrior())
SUBJECTS = 2


def a_batch(size=16):
    """Random pictures and planes on both sides, the trained ones leaves."""
    torch.manual_seed(0)
    sides = []
    for _ in range(2):
        raw, image = torch.rand(2, SUBJECTS, 1, 3, size, size, dtype=torch.float64) * 2 - 1
        depth, opacity = torch.rand(2, SUBJECTS, 1, 1, size, size, dtype=torch.float64)
        planes = torch.randn(SUBJECTS, 3, 2, 4, 5, dtype=torch.float64)
        sides.append(Side({"planes": planes}, {VIEW: Render(raw, depth, opacity, image)}))
    for leaf in (*sides[0].views[VIEW].tensors().values(), sides[0].scene["planes"]):
        leaf.requires_grad_()
    return StepBatch(Draws(0, 0, tuple(range(SUBJECTS))), torch.zeros(SUBJECTS, 1), {}, *sides)


def gradient(term, batch, leaf):
    return torch.autograd.grad(term.forward(batch).sum(), leaf)[0]


def test_opacity_is_a_mean_square_and_its_gradient_twice_the_difference():
    batch = a_batch()
    trained, original = (side.views[VIEW].opacity for side in (batch.trained, batch.reference))
    term = OpacityAnchor(VIEW)
    by_hand = torch.stack([((t - o) ** 2).mean() for t, o in zip(trained, original)])
    torch.testing.assert_close(term.forward(batch), by_hand)
    torch.testing.assert_close(gradient(term, batch, trained), 2 * (trained - original).detach() / 16**2)
    assert term.needs == Needs({VIEW: "raw"}, {VIEW: "raw"})


@pytest.mark.parametrize("stage", ["raw", "image"])
@pytest.mark.parametrize("size", [16, 24])
def test_perceptual_is_the_mean_square_between_latents_and_reaches_the_pixels_through_the_encoder(stage, size):
    batch = a_batch(size)
    trained, original = (side.views[VIEW].stage(stage) for side in (batch.trained, batch.reference))
    term = PerceptualAnchor(VIEW, SCORER, stage)
    pixels = trained.detach().clone().requires_grad_()
    far = SCORER.encode(fit(pixels, 16)[:, 0]) - SCORER.encode(fit(original, 16)[:, 0])
    by_hand = far.square().flatten(1).mean(1)
    torch.testing.assert_close(term.forward(batch), by_hand)
    torch.testing.assert_close(gradient(term, batch, trained), torch.autograd.grad(by_hand.sum(), pixels)[0])
    assert term.needs == Needs({VIEW: stage}, {VIEW: stage})


def test_variation_is_what_loops_over_neighbours_say():
    batch = a_batch()
    planes = batch.trained.scene["planes"]
    _, p, c, h, w = planes.shape
    along_h = sum((planes[:, :, :, i + 1] - planes[:, :, :, i]).square().sum((1, 2, 3)) for i in range(h - 1))
    along_w = sum((planes[..., i + 1] - planes[..., i]).square().sum((1, 2, 3)) for i in range(w - 1))
    by_hand = along_h / (p * c * (h - 1) * w) + along_w / (p * c * h * (w - 1))
    torch.testing.assert_close(PlaneVariation().forward(batch), by_hand)


def test_variation_is_zero_on_flat_planes_and_one_on_a_slope_of_one():
    batch = a_batch()
    slope = torch.arange(5.0).expand(SUBJECTS, 3, 2, 4, 5)
    for planes, expected in ((torch.ones_like(slope), 0.0), (slope, 1.0), (slope + torch.arange(4.0)[:, None], 2.0)):
        batch.trained = Side({"planes": planes})
        assert PlaneVariation().forward(batch).tolist() == [expected] * SUBJECTS


def test_the_scene_anchor_is_relative_and_its_gradient_points_home():
    batch = a_batch()
    trained, original = (side.scene["planes"] for side in (batch.trained, batch.reference))
    norm = original.square().flatten(1).sum(1)
    term = SceneAnchor()
    torch.testing.assert_close(term.forward(batch), (trained - original).square().flatten(1).sum(1) / norm)
    expected = 2 * (trained - original).detach() / norm.view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(gradient(term, batch, trained), expected)
    batch.trained.scene["planes"] = 3 * original
    torch.testing.assert_close(term.forward(batch), torch.full((SUBJECTS,), 4.0, dtype=torch.float64))


@pytest.mark.parametrize("term", [OpacityAnchor(VIEW), PerceptualAnchor(VIEW, SCORER), PlaneVariation(), SceneAnchor()])
def test_gradients_agree_with_finite_differences(term):
    batch = a_batch(8)
    leaves = [*batch.trained.views[VIEW].tensors().values(), batch.trained.scene["planes"]]
    slopes = torch.autograd.grad(term.forward(batch).sum(), leaves, allow_unused=True)
    assert sum(slope is not None for slope in slopes) == 1
    for leaf, slope in zip(leaves, slopes):
        if slope is None:
            continue
        way, before = torch.randn_like(leaf), leaf.detach().clone()
        ends = []
        for step in (1e-5, -1e-5):
            leaf.data = before + step * way
            ends.append(float(term.forward(batch).detach().sum()))
        leaf.data = before
        assert float((slope * way).sum()) == pytest.approx((ends[0] - ends[1]) / 2e-5, rel=1e-5)


@pytest.mark.parametrize("term", [PlaneVariation("grid"), SceneAnchor("grid")])
def test_a_scene_without_the_entry_is_named_with_what_it_has(term):
    with pytest.raises(ConfigError, match="reads 'grid' of the scene; this backbone's scene has planes"):
        term.forward(a_batch())


def with_anchors(renderer, *names, method=sds, weight=1.0, steps=4, **options):
    defaults = replace(renderer.defaults, steps=steps)
    built = method(SCORER, CATALOGUE["zombie"], defaults)
    return Trainer(renderer, anchored(built, dict.fromkeys(names, weight), SCORER, defaults), **options)


@pytest.mark.parametrize("term", [OpacityAnchor(VIEW), PerceptualAnchor(VIEW, SCORER), SceneAnchor()])
def test_equal_sides_are_at_distance_zero_bit_for_bit_and_pull_nowhere(term):
    batch = a_batch()
    reference = batch.reference
    views = {VIEW: reference.views[VIEW].map(lambda picture: picture.clone().requires_grad_())}
    batch.trained = Side({"planes": reference.scene["planes"].clone().requires_grad_()}, views)
    loss = term.forward(batch)
    assert loss.tolist() == [0.0] * SUBJECTS
    leaves = [*views[VIEW].tensors().values(), batch.trained.scene["planes"]]
    for slope in torch.autograd.grad(loss.sum(), leaves, allow_unused=True):
        assert slope is None or not slope.any()


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-11), (torch.float64, 1e-28)])
@pytest.mark.parametrize("anchor", ["opacity", "perceptual", "scene"])
def test_an_untouched_renderer_is_at_no_distance_in_a_step_but_for_rounding(anchor, dtype, rounding):
    """Torch chooses some kernels by requires_grad, and their last bits differ; the scene is made alike."""
    renderer = toy(dtype=dtype)
    weighted = ANCHORS[anchor](1.0, SCORER, renderer.defaults)
    log = Trainer(renderer, Method({"anchor": weighted}), batch=2).step()
    assert 0 <= log.figures["anchor/distance"] < rounding
    assert log.loss == log.figures["anchor/distance"]


@pytest.mark.parametrize("make", [toy, lambda: AnySizeToy().double()], ids=["toy", "any size"])
@pytest.mark.parametrize("method", [sds, ld])
def test_a_step_in_pieces_equals_one_graph_with_all_anchors(method, make):
    trainer = with_anchors(make(), *ANCHORS, method=method, batch=2, lr=lambda step: 1e-2)
    trainer.step()  # away from the original
    assert_equals_one_graph(trainer, 1e-10)


@pytest.mark.parametrize("anchor", ANCHORS)
def test_training_ends_nearer_with_an_anchor_than_without(anchor):
    def distance_after(*anchors):
        trainer = with_anchors(toy(), *anchors, batch=2, weight=3e3, steps=12, lr=lambda step: 1e-2)
        for _ in range(12):
            trainer.step()
        measure = Trainer(trainer.renderer, Method({"anchor": ANCHORS[anchor](1.0, SCORER, toy().defaults)}), batch=2)
        measure.reference = trainer.reference
        return measure.gradients().figures["anchor/distance"]

    assert distance_after(anchor) < 0.5 * distance_after()


def test_the_opacity_anchor_shares_the_methods_own_view():
    views = [set(w.term.needs.views) for w in with_anchors(toy(), "opacity").method.terms.values()]
    assert views[0] == views[1]


def test_the_input_view_looks_straight_ahead_from_the_backbones_distance():
    front = CameraPrior(yaw=60, pitch=20, focal=1.4, radius=1.9)
    cameras = input_view(front).cameras(Draws(3, 5, (0, 1)))
    assert cameras.yaw().abs().max() == cameras.pitch().abs().max() == 0
    torch.testing.assert_close(cameras.cam2world[:, 0, :3, 3], torch.tensor([[0.0, 0.0, 1.9]] * 2))
    assert cameras.intrinsics[0, 0, 0, 0] == pytest.approx(1.4)


def test_a_falling_weight_is_whole_at_the_first_step_half_in_the_middle_and_nothing_at_the_last():
    weight = falling(4.0, 11)
    assert [weight(0), weight(5), weight(10), weight(11)] == [4.0, 2.0, 0.0, 0.0]
    assert falling(4.0, 1)(0) == 4.0


def test_only_the_scene_anchors_weight_falls():
    defaults = toy().defaults  # of 4 steps
    for name, make in ANCHORS.items():
        weighted: Weighted = make(2.0, SCORER, defaults)
        assert callable(weighted.weight) == (name == "scene")
    weight = ANCHORS["scene"](2.0, SCORER, defaults).weight
    assert (weight(0), weight(3)) == (2.0, 0.0)
