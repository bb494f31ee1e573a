"""Terms against their equations, written out by hand."""

import sys
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from distill3d.cameras import CameraPrior, orbit
from distill3d.draws import Draws
from distill3d.errors import ConfigError, MissingExtraError
from distill3d.objectives import LDLoss, SDSLoss
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.guidance import guidance_table
from distill3d.objectives.term import Needs, Side, StepBatch, Term, Weighted
from distill3d.objectives.terms import RelativeDistance, ScoreTerm, Tweedie
from distill3d.renderer import Render
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.views import Grid, Mirror, Single, View, fit

FRONT, AROUND = CameraPrior(yaw=60), CameraPrior(yaw=180)
MAIN = View("main", FRONT)
LAYOUTS = {"single": Single(MAIN), "mirror": Mirror(MAIN, (0.75, 0.25)), "grid": Grid(2, 2, AROUND)}
PROMPTS = {"prompt": "Portrait of a zombie", "empty": ""}
SUBJECTS = 2


@pytest.fixture
def scorer():
    return GaussianScorer(latent_size=8, seed=4)  # pictures of 16 x 16


@pytest.fixture(params=LAYOUTS)
def layout(request):
    return LAYOUTS[request.param]


def random_render(size, subjects):
    raw, image = torch.rand(2, subjects, 1, 3, size, size, dtype=torch.float64) * 2 - 1
    depth, opacity = torch.rand(2, subjects, 1, 1, size, size, dtype=torch.float64)
    return Render(raw, 1 + depth, opacity, image)


def a_batch(layout, yaws=(0.0,) * SUBJECTS, step=0):
    """Random pictures of the size of a tile on both sides, the trained ones leaves; cameras at `yaws` degrees."""
    count = len(yaws)
    yaw = torch.deg2rad(torch.tensor(yaws))[:, None]
    trained, reference = Side({}), Side({})
    for view in layout.views:
        for side in (trained, reference):
            side.views[view] = random_render(layout.tile(16), count)
        trained.views[view].image.requires_grad_()
    cameras = dict.fromkeys(layout.views, orbit(yaw, torch.zeros_like(yaw)))
    return StepBatch(Draws(0, step, tuple(range(count))), torch.zeros(count, 1), cameras, trained, reference)


def picture_of(layout, side):
    """The values of the joined picture, without a graph."""
    return layout.join(torch.cat([side.views[view].image for view in layout.shown], 1)).detach()


def gradients(term, batch):
    leaves = [render.image for render in batch.trained.views.values()]
    return torch.autograd.grad(term.forward(batch).sum(), leaves, allow_unused=True)


def shares(layout, gradient):
    """Which part of a picture's gradient each view must get: (S, 1, 3, h, w), view by view."""
    parts = layout.split(gradient)
    if isinstance(layout, Mirror):
        parts = parts * torch.tensor(layout.weights).view(1, 2, 1, 1, 1)
    return parts.unbind(1)


def denoising_of(scorer, layout, **options):
    return Denoising(scorer, layout, options.pop("prompts", PROMPTS), pick([120, 480, 860]), **options)


def predicted_by_hand(scorer, layout, batch, prediction):
    """(noise predictions of both branches, noisy latents, signal, sigma) from the joined picture."""
    timestep = prediction.timestep
    signal, sigma = (table[timestep].view(-1, 1, 1, 1) for table in (scorer.schedule.signals, scorer.schedule.noises))
    noisy = signal * scorer.encode(picture_of(layout, batch.trained)) + sigma * prediction.noise
    conditions = {name: scorer.condition([text] * len(timestep)) for name, text in PROMPTS.items()}
    return scorer.predict_noise(noisy, timestep, conditions), noisy, signal, sigma


@pytest.mark.parametrize("mask", [None, "trained", "reference"])
def test_a_score_terms_gradient_on_the_pixels_is_the_one_written_by_hand(scorer, layout, mask):
    """w(t) * (guided prediction - noise) * opacity on the latents, then the transposed encoder, then the layout.

    The Gaussian scorer's encoder is a convolution and `decode` its transpose, so the whole chain is explicit.
    """
    batch = a_batch(layout)
    recipe = denoising_of(scorer, layout)
    objective = SDSLoss(scorer, guidance_scale=3.0)  # w = sigma^2
    got = gradients(ScoreTerm(recipe, objective, mask=mask), batch)

    prediction = recipe.predict(batch)
    eps, _, _, sigma = predicted_by_hand(scorer, layout, batch, prediction)
    on_latents = sigma**2 * (eps["empty"] + 3.0 * (eps["prompt"] - eps["empty"]) - prediction.noise)
    if mask is not None:
        side = batch.trained if mask == "trained" else batch.reference
        opacity = layout.join(torch.cat([side.views[view].opacity for view in layout.shown], 1))
        on_latents = on_latents * F.avg_pool2d(opacity, 2)
    for of_view, expected in zip(got, shares(layout, scorer.decode(on_latents))):
        torch.testing.assert_close(of_view[:, 0], expected)


def test_no_mask_and_the_masks_of_the_two_sides_are_three_different_gradients(scorer):
    layout = LAYOUTS["single"]
    batch = a_batch(layout)
    one, two, three = (
        gradients(ScoreTerm(denoising_of(scorer, layout), LDLoss(scorer), mask=mask), batch)[0]
        for mask in (None, "trained", "reference")
    )
    for a, b in ((one, two), (two, three), (one, three)):
        assert (a - b).norm() > 0.05 * one.norm()


def test_no_gradient_flows_through_the_mask(scorer):
    """Else a generator could lower its loss by becoming transparent."""
    layout = LAYOUTS["single"]
    batch = a_batch(layout)
    opacity = batch.trained.views[MAIN].opacity.requires_grad_()
    loss = ScoreTerm(denoising_of(scorer, layout), LDLoss(scorer), mask="trained").forward(batch).sum()
    assert torch.autograd.grad(loss, opacity, allow_unused=True)[0] is None


def test_a_reference_mask_asks_for_the_references_opacity(scorer, layout):
    recipe = denoising_of(scorer, layout)
    for mask in (None, "trained"):
        hidden = frozenset(layout.views) - frozenset(layout.shown)
        wanted = Needs(dict.fromkeys(layout.views, "image"), blind=hidden)
        assert ScoreTerm(recipe, LDLoss(scorer), mask=mask).needs == wanted
    with_reference = ScoreTerm(recipe, LDLoss(scorer), mask="reference").needs
    assert with_reference.reference == dict.fromkeys(layout.shown, "raw")


def test_a_term_asks_for_the_stage_that_it_reads(scorer, layout):
    assert denoising_of(scorer, layout, stage="raw").needs.views == dict.fromkeys(layout.views, "raw")
    with_depth = denoising_of(scorer, layout, stage="raw", controls=("depth",))
    assert with_depth.needs.reference == dict.fromkeys(layout.shown, "raw")


def test_tweedie_is_half_the_distance_to_its_own_denoised_estimate(scorer, layout):
    """mean ((x - x0_hat) / 2)^2 with x0_hat = clamp(decode((x_t - sigma eps) / signal)), held still."""
    batch = a_batch(layout)
    recipe = denoising_of(scorer, layout)
    term = Tweedie(recipe, guidance_table("full", 4.0))
    value, got = term.forward(batch), gradients(term, batch)

    eps, noisy, signal, sigma = predicted_by_hand(scorer, layout, batch, recipe.predict(batch))
    guided = eps["empty"] + 4.0 * (eps["prompt"] - eps["empty"])
    target = scorer.decode((noisy - sigma * guided) / signal).clamp(-1, 1)
    away = picture_of(layout, batch.trained) - target
    torch.testing.assert_close(value, (away / 2).square().flatten(1).mean(1))
    assert value.min() > 0.01

    on_picture = away / (2 * away[0].numel())  # the target's own dependence on x would add to it
    if isinstance(layout, Mirror):  # the shown view alone: nothing was joined with the mirrored one
        torch.testing.assert_close(got[0][:, 0], on_picture)
        assert got[1] is None or got[1].abs().max() == 0
    else:
        for of_view, expected in zip(got, layout.split(on_picture).unbind(1)):
            torch.testing.assert_close(of_view[:, 0], expected)


def scenes_of(*tensors):
    return [{"planes": t, "ws": torch.zeros(len(t), 1)} for t in tensors]


def distance_of(trained, reference, before=None, before_reference=None):
    (now, original) = scenes_of(trained, reference)
    previous = None if before is None else tuple(scenes_of(before, before_reference))
    batch = StepBatch(Draws(0, 1, (0,)), torch.zeros(len(trained), 1), {}, Side(now), Side(original), previous)
    return RelativeDistance().forward(batch)


def test_relative_distance_has_the_value_worked_out_by_hand():
    """Two pixels, three planes, one channel: squared distances 14 and 1 now, 2 and 4 among the originals."""
    column = lambda *pixels: torch.tensor(pixels, dtype=torch.float64).T.view(1, 3, 1, 1, len(pixels))  # noqa: E731
    zero = torch.zeros(1, 3, 1, 1, 2, dtype=torch.float64)
    trained, reference = column([1, 2, 3], [0, 1, 0]), column([1, 1, 0], [0, 0, 2])
    value = distance_of(trained, reference, zero, zero)
    torch.testing.assert_close(value, torch.tensor([(14 / 2 - 1 + 1 - 1 / 4) / 2], dtype=torch.float64))


def test_relative_distance_is_zero_at_the_first_step():
    value = distance_of(torch.randn(2, 3, 4, 5, 5), torch.randn(2, 3, 4, 5, 5))
    assert value.tolist() == [0, 0]


def test_relative_distance_is_zero_for_the_original():
    now, before = torch.randn(2, 2, 3, 4, 5, 5, dtype=torch.float64)
    assert distance_of(now, now, before, before).max() < 1e-6
    assert distance_of(now + 5, now, before + 5, before).max() < 1e-6  # a shift of all subjects is no distance


@pytest.mark.parametrize("scale", [0.5, 3.0])
def test_relative_distance_of_scaled_planes_is_how_much_their_square_grew(scale):
    now, before = torch.randn(2, 2, 3, 4, 5, 5, dtype=torch.float64)
    value = distance_of(scale * now, now, scale * before, before)
    torch.testing.assert_close(value, torch.full((2,), abs(scale**2 - 1), dtype=torch.float64), rtol=1e-4, atol=0)


def test_relative_distance_stays_finite_where_the_originals_agree():
    same = torch.randn(1, 3, 4, 5, 5)
    assert distance_of(same, same, same, same).isfinite().all()
    assert RelativeDistance().needs == Needs(previous=True)


def test_needs_add_up_to_the_furthest_stage():
    other = View("other", FRONT)
    low, high = Needs({MAIN: "raw"}, {other: "image"}), Needs({MAIN: "image", other: "raw"}, {other: "raw"}, True)
    for union in (low | high, high | low):
        assert union.views == {MAIN: "image", other: "raw"}
        assert union.reference == {other: "image"}
        assert union.previous
    assert low | Needs() == Needs() | low == low
    assert not (low | low).previous
    assert low.views == {MAIN: "raw"}  # neither side is changed


def test_the_order_of_views_is_the_order_of_asking():
    views = [View(name, FRONT) for name in "dacb"]
    union = Needs(dict.fromkeys(views[:2], "raw")) | Needs(dict.fromkeys([*views[1:], views[0]], "image"))
    assert list(union.views) == views


class Constant(Term):
    """One loss per subject, fixed."""

    needs = Needs()

    def forward(self, batch):
        return torch.tensor([1.0, 10.0])


def test_a_weighted_term_is_due_every_few_steps_and_summed_over_subjects():
    assert [s for s in range(10) if Weighted(1.0, Constant(), every=3).due(s)] == [0, 3, 6, 9]
    assert all(Weighted(1.0, Constant()).due(s) for s in range(5))
    batch = a_batch(LAYOUTS["single"])
    assert Weighted(0.5, Constant()).loss(batch, 0) == 5.5
    at_step = Weighted(lambda step: 2.0**step, Constant())
    assert [float(at_step.loss(batch, step)) for step in (0, 3)] == [11.0, 88.0]


def texts_of(denoising, batch, branch):
    """What the scorer was asked for in that branch, subject by subject."""
    return denoising.predict(batch).conditions[branch].prompts


@pytest.mark.parametrize("kind", [Single, Mirror])
def test_a_wide_range_of_views_names_the_side_that_each_subject_is_seen_from(scorer, kind):
    layout = kind(View("main", AROUND))
    denoising = denoising_of(scorer, layout)
    batch = a_batch(layout, yaws=(0.0, 100.0, -100.0, 180.0))
    expected = [f"{side} view of Portrait of a zombie" for side in ("front", "side", "side", "back")]
    assert list(texts_of(denoising, batch, "prompt")) == expected


@pytest.mark.parametrize("other", ["", "ugly, blurred"])
def test_the_empty_branch_has_no_view_words(scorer, other):
    """In both branches they would cancel in the guidance difference."""
    layout = Single(View("main", AROUND))
    denoising = denoising_of(scorer, layout, prompts={"prompt": "Portrait of a zombie", "empty": other})
    assert list(texts_of(denoising, a_batch(layout, yaws=(180.0, 90.0)), "empty")) == [other, other]


def test_a_narrow_range_and_a_grid_keep_the_plain_prompt(scorer):
    for layout in (Single(MAIN), Grid(2, 2, AROUND)):
        batch = a_batch(layout, yaws=(10.0, 55.0))
        assert list(texts_of(denoising_of(scorer, layout), batch, "prompt")) == [PROMPTS["prompt"]] * 2


def test_a_scorer_that_was_taught_words_for_grids_hears_them_of_grids_alone(scorer):
    scorer.grid_words = "four views"
    for layout, expected in (
        (Grid(2, 2, AROUND), "Portrait of a zombie, four views"),
        (Single(MAIN), "Portrait of a zombie"),
    ):
        denoising = denoising_of(scorer, layout, prompts={"prompt": "Portrait of a zombie", "empty": ""})
        batch = a_batch(layout, yaws=(10.0, 55.0))
        assert list(texts_of(denoising, batch, "prompt")) == [expected] * 2
        assert list(texts_of(denoising, batch, "empty")) == ["", ""]


class CountingScorer(GaussianScorer):
    """Counts its forward passes."""

    calls = 0

    def predict_noise(self, *args):
        self.calls += 1
        return super().predict_noise(*args)


def test_terms_on_one_denoising_share_its_forward_pass_and_others_do_not():
    scorer = CountingScorer(latent_size=8)
    layout = LAYOUTS["single"]
    shared, own = denoising_of(scorer, layout), denoising_of(scorer, layout)
    batch = a_batch(layout)
    for term in (
        ScoreTerm(shared, LDLoss(scorer)),
        Tweedie(shared, {"prompt": 1.0}),
        ScoreTerm(shared, LDLoss(scorer)),
    ):
        term.forward(batch)
    assert scorer.calls == 1
    ScoreTerm(own, LDLoss(scorer)).forward(batch)
    assert scorer.calls == 2
    ScoreTerm(shared, LDLoss(scorer)).forward(a_batch(layout, step=1))
    assert scorer.calls == 3  # the next step knows nothing of this one


def test_what_is_asked_for_once_is_computed_once():
    batch, made = a_batch(LAYOUTS["single"]), []
    assert [batch.once("key", lambda: made.append(1)) for _ in range(3)] == [None] * 3  # None is remembered too
    assert made == [1]
    batch.once(("key", 2), lambda: made.append(2))
    assert made == [1, 2]


def test_denoisings_of_equal_draw_see_equal_noise(scorer):
    batch = a_batch(LAYOUTS["single"])
    one, same, other = (
        denoising_of(scorer, LAYOUTS["single"], draw=draw).predict(batch) for draw in ("score", "score", "grid")
    )
    assert torch.equal(one.noise, same.noise) and torch.equal(one.timestep, same.timestep)
    assert not torch.equal(one.noise, other.noise)


def test_drawn_timesteps_are_the_choices_one_for_each_subject():
    drawn = pick([7, 30, 400])(Draws(0, 0, tuple(range(60))))
    assert set(drawn.tolist()) == {7, 30, 400}
    alone = pick([7, 30, 400])(Draws(0, 0, (41,)))
    assert alone.tolist() == drawn[41:42].tolist()


def test_views_joined_on_latents_have_the_value_and_the_gradient_of_views_joined_on_images(scorer):
    """The Gaussian encoder is linear and sees each patch by itself, so a grid's two ways agree."""
    layout = LAYOUTS["grid"]
    batch = a_batch(layout)
    on_images, on_latents = (
        gradients(ScoreTerm(denoising_of(scorer, layout, join=join), LDLoss(scorer)), batch)
        for join in ("images", "latents")
    )
    for one, other in zip(on_images, on_latents):
        torch.testing.assert_close(one, other)


def test_a_control_of_the_reference_changes_the_prediction(scorer):
    layout = LAYOUTS["single"]
    batch = a_batch(layout)
    plain, with_depth = (
        denoising_of(scorer, layout, controls=controls).predict(batch).branches["prompt"]
        for controls in ((), ("depth",))
    )
    assert (plain - with_depth).abs().max() > 1e-3
    other = replace(batch, reference=Side({}, {MAIN: random_render(16, SUBJECTS)}), memo={})
    moved = denoising_of(scorer, layout, controls=("depth",)).predict(other).branches["prompt"]
    assert (moved - with_depth).abs().max() > 1e-3


def test_a_control_that_the_scorer_lacks_is_refused_at_once(scorer):
    with pytest.raises(ConfigError, match=r"no ControlNet for normals.*depth, canny"):
        denoising_of(scorer, LAYOUTS["single"], controls=("normals",))


def test_canny_without_opencv_is_refused_before_the_run_starts(scorer, monkeypatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match=r"distill3d\[control\]"):
        denoising_of(scorer, LAYOUTS["single"], controls=("canny",))


def test_tiles_are_resized_view_by_view():
    """A mask that is smaller than the picture is fitted to its own tile: no opacity bleeds over a seam."""
    layout = Grid(2, 2, AROUND)
    renders = {view: random_render(8, 1) for view in layout.views}
    for i, view in enumerate(layout.views):
        renders[view] = replace(renders[view], opacity=torch.full((1, 1, 1, 8, 8), float(i == 1)))
    side = Side({}, renders)
    for size in (4, 16):
        opacity = side.opacity(layout.views, size)
        assert opacity[:, 1].min() == 1 and opacity[:, [0, 2, 3]].max() == 0
    tiles = side.tiles(layout.views, "image", 4)
    torch.testing.assert_close(tiles, fit(torch.cat([r.image for r in renders.values()], 1), 4), rtol=0, atol=0)
