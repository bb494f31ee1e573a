"""The step in pieces equals the step as one graph, at the memory of one view; the reference is never touched."""

import math
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch

from distill3d.errors import ConfigError, DivergedError
from distill3d.methods import Method, ld, ld_paper, ld_released, sds
from distill3d.objectives import LDLoss
from distill3d.objectives.denoising import Denoising, pick
from distill3d.objectives.term import Weighted
from distill3d.objectives.terms import ScoreTerm
from distill3d.scorers.gaussian import GaussianScorer
from distill3d.styles import CATALOGUE
from distill3d.testing.saved_bytes import SavedBytes
from distill3d.training.groups import linked_groups
from distill3d.training.rates import cosine_decay
from distill3d.training.step import Step
from distill3d.training.trainer import Trainer
from distill3d.views import Grid
from tests.toys import AROUND, AnySizeToy, SlowDecoderToy, single_view_method, toy

SCORER = GaussianScorer(latent_size=8)
METHODS = {
    "ld": ld,
    "ld at a noise": partial(ld, path="noise"),
    "ld-paper": ld_paper,
    "ld-released": ld_released,
    "sds": sds,
}


def method(name):
    return METHODS[name](SCORER, CATALOGUE["zombie"], toy().defaults)


def gradients_in_pieces(trainer):
    trainer.gradients()
    found = {name: p.grad for name, p in trainer.trained.items()}
    trainer.optimizer.zero_grad(set_to_none=True)
    return found


def assert_equals_one_graph(trainer, tolerance):
    names, parameters = zip(*trainer.trained.items())
    whole = dict(zip(names, torch.autograd.grad(trainer.loss(), parameters, allow_unused=True)))
    pieces = gradients_in_pieces(trainer)
    assert any(g is not None and g.abs().max() > 0 for g in whole.values())
    for name, want in whole.items():
        got = pieces[name]
        assert (got is None) == (want is None), name
        if want is not None:
            assert (got - want).norm() <= tolerance * want.norm().clamp_min(1e-30), name


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("views", [1, 2, 4, 8])
def test_the_scene_leaf_gives_the_one_graph_gradient_by_name(views, dtype, tolerance):
    assert_equals_one_graph(Trainer(toy(dtype=dtype), single_view_method(SCORER, views), batch=2), tolerance)


@pytest.mark.parametrize("rerender", [True, False])
@pytest.mark.parametrize("name", METHODS)
def test_so_it_does_for_every_method_also_after_a_step(name, rerender):
    trainer = Trainer(toy(), method(name), batch=2, rerender=rerender, lr=lambda step: 1e-2)
    trainer.step()  # away from the reference, and with a step before
    assert_equals_one_graph(trainer, 1e-10)


def test_a_mapping_that_is_trained_before_the_scene_is_handled_too():
    from dataclasses import replace

    assert_equals_one_graph(Trainer(toy(), replace(method("ld"), trains="all"), batch=2), 1e-10)


def peak_saved_bytes(method_, **options):
    # Pixels are few beside a render's graph in a real backbone; so they are here: many samples along a ray.
    trainer = Trainer(toy(dtype=torch.float32, raw_size=16, samples=48), method_, **options)
    ignore = [*trainer.renderer.parameters(), *trainer.reference.parameters(), *SCORER.parameters()]
    with SavedBytes(ignore) as saved:
        trainer.gradients()
    return saved.peak


def test_saved_bytes_do_not_grow_with_the_number_of_views():
    peaks = {views: peak_saved_bytes(single_view_method(SCORER, views)) for views in (1, 2, 4, 8)}
    assert max(peaks.values()) <= 1.03 * min(peaks.values()), peaks


def joined_method(side):
    recipe = Denoising(SCORER, Grid(side, side, AROUND), {"prompt": "a", "empty": ""}, pick([300]), "raw")
    return Method({"grid": Weighted(1.0, ScoreTerm(recipe, LDLoss(SCORER)))})


def test_nor_do_they_under_a_term_that_joins_many_views():
    peaks = {side: peak_saved_bytes(joined_method(side)) for side in (2, 4)}  # 4 and 16 views
    assert max(peaks.values()) <= 1.03 * min(peaks.values()), peaks


def test_without_rerendering_they_do_grow():
    """So the count above can fail."""
    peaks = [peak_saved_bytes(joined_method(side), rerender=False) for side in (1, 2)]
    assert peaks[1] > 2.5 * peaks[0]


def test_a_step_leaves_the_reference_bit_identical_and_shares_what_is_not_trained():
    trainer = Trainer(toy(), method("ld-released"), batch=2, lr=lambda step: 1e-2)
    before = {name: t.clone() for name, t in trainer.reference.state_dict().items()}
    mine, theirs = (dict(r.named_parameters()) for r in (trainer.renderer, trainer.reference))
    assert all((mine[name] is theirs[name]) == (name not in trainer.trained) for name in mine)
    for _ in range(2):
        trainer.step()
    assert all(torch.equal(before[name], t) for name, t in trainer.reference.state_dict().items())
    assert any(not torch.equal(before[name], p) for name, p in trainer.trained.items())


def begun(trainer):
    """The step that is next, and its pictures' cameras and scenes."""
    step = trainer._work(tuple(range(trainer.batch)), trainer.step_number)
    return step, step.begin(trainer.renderer.scene)


@pytest.fixture
def looks(monkeypatch):
    """(renderer, view, stage, whether with a graph) of every view that a step renders, as it goes."""
    noted, look = [], Step.look

    def noting(step, renderer, scene, batch, views, stage):
        noted.extend((renderer, view, stage, torch.is_grad_enabled()) for view in views)
        return look(step, renderer, scene, batch, views, stage)

    monkeypatch.setattr(Step, "look", noting)
    return noted


def test_each_view_is_rendered_once_and_super_resolved_only_where_it_is_read(looks):
    trainer = Trainer(toy(), method("ld-released"), rerender=False)
    trainer.gradients()
    seen = Counter((renderer is trainer.reference, view, stage) for renderer, view, stage, _ in looks)
    assert set(seen.values()) == {1}
    assert sum(reference for reference, _, _ in seen) == 5  # main and the grid's four; the mirrored one is not read
    assert len(seen) == 5 + 6
    image = [key for key in seen if key[2] == "image"]
    # Edges are read from the reference's image, where a scorer has a ControlNet for them.
    assert sorted(key[1].name for key in image) == ["main", "main", "main"]


def test_replayed_steps_see_the_same_subjects_and_cameras_and_others_do_not():
    trainer = Trainer(toy(), replace(method("sds"), replay=2))
    seen = []
    for trainer.step_number in range(4):
        _, batch = begun(trainer)
        seen.append([batch.codes, *(cameras.cam2world for cameras in batch.cameras.values())])
    assert all(torch.equal(a, b) for first, again in (seen[::2], seen[1::2]) for a, b in zip(first, again))
    assert not any(torch.equal(a, b) for a, b in zip(*seen[:2]))


def test_a_kept_target_needs_neither_scene_nor_render_of_the_reference(looks):
    """Its steps still differ: the renderer has moved on, towards the targets."""
    defaults = replace(toy().defaults, replay=2, path="flow")
    trainer = Trainer(toy(), ld(SCORER, CATALOGUE["zombie"], defaults), lr=lambda step: 1e-3)
    scenes, scene = [], trainer.reference.scene
    trainer.reference.scene = lambda codes: scenes.append(codes) or scene(codes)
    counts, losses = [], []
    for _ in range(6):
        looks.clear()
        scenes.clear()
        losses.append(trainer.step().loss)
        counts.append((len(scenes), sum(renderer is trainer.reference for renderer, *_ in looks)))
    assert counts == [(1, 5), (1, 5), *[(0, 0)] * 4]  # main and the grid's four
    assert losses[4] < losses[2] < losses[0]
    assert losses[5] < losses[3] < losses[1]


@pytest.mark.parametrize("every", [1, 2, 3])
def test_the_grid_is_rendered_every_so_many_steps(every, looks):
    method = ld(SCORER, CATALOGUE["zombie"], toy().defaults, grid_every=every)
    trainer = Trainer(toy(), method, lr=lambda step: 1e-3, rerender=False)
    counts = []
    for _ in range(4):
        looks.clear()
        trainer.step()
        counts.append(sum(renderer is trainer.renderer for renderer, *_ in looks))
    assert counts == [6 if step % every == 0 else 2 for step in range(4)]  # the mirrored pair, and the grid's four


def test_a_view_that_is_looked_at_in_a_small_tile_is_rendered_small_where_the_backbone_can():
    torch.manual_seed(0)
    able, unable = AnySizeToy(raw_size=16).double(), toy(raw_size=16)
    sizes = {}
    for renderer in (able, unable):
        trainer = Trainer(renderer, method("ld"), batch=2)
        step, batch = begun(trainer)
        for view, stage in step.needs.views.items():
            picture = step.look(renderer, batch.trained.scene, batch, [view], stage)[view].raw
            sizes[type(renderer).__name__, view.name, stage] = picture.shape[-1]
    assert {size for (_, name, _), size in sizes.items() if name == "main"} == {16}  # super-resolution needs it whole
    assert sizes["AnySizeToy", "grid0", "raw"] == SCORER.image_size // 2 == 8
    assert sizes["ToyTriplane", "grid0", "raw"] == 16
    assert_equals_one_graph(Trainer(able, method("ld"), batch=2), 1e-10)


def test_terms_that_share_a_view_are_one_group():
    groups = linked_groups(method("ld-released").terms)
    assert [group.terms for group in groups] == [["grid"], ["score", "tweedie"], ["ldis"]]


def test_two_terms_with_one_denoising_share_its_prediction():
    calls = []

    class Counting(GaussianScorer):
        def predict_noise(self, *args):
            calls.append(1)
            return super().predict_noise(*args)

    scorer = Counting(latent_size=8)
    trainer = Trainer(toy(), ld_released(scorer, CATALOGUE["zombie"], toy().defaults))
    trainer.gradients()
    assert len(calls) == 2  # score and tweedie together, the grid


def test_a_gradient_that_is_not_finite_skips_the_step_and_ten_in_a_row_stop():
    class Broken(GaussianScorer):
        def predict_noise(self, noisy, timestep, conditions):
            return {name: torch.full_like(noisy, math.nan) for name in conditions}

    trainer = Trainer(toy(), sds(Broken(latent_size=8), CATALOGUE["zombie"], toy().defaults))
    before = {name: p.clone() for name, p in trainer.trained.items()}
    for _ in range(9):
        assert trainer.step().skipped
    with pytest.raises(DivergedError, match="10 steps in a row"):
        trainer.step()
    assert all(torch.equal(before[name], p) for name, p in trainer.trained.items())


def test_a_finite_step_resets_the_count():
    scorer = GaussianScorer(latent_size=8)
    trainer = Trainer(toy(), sds(scorer, CATALOGUE["zombie"], toy().defaults))
    trainer.skipped_in_a_row = 9
    assert not trainer.step().skipped
    assert trainer.skipped_in_a_row == 0


def test_distilling_raises_the_likelihood_of_the_renders():
    """The claim of the whole package, on a distribution that is known."""
    scorer = GaussianScorer(latent_size=8, rank=2)
    trainer = Trainer(toy(), sds(scorer, CATALOGUE["zombie"], toy().defaults, guidance_scale=1.0), batch=2,
                      lr=lambda step: 1e-2)  # fmt: skip
    from distill3d.draws import Draws
    from distill3d.views import View

    @torch.no_grad()
    def likelihood(renderer):
        draws = Draws(9, 0, tuple(range(6)))
        scene = renderer.scene(renderer.sample_codes(draws))
        cameras = View("main", renderer.defaults.front).cameras(draws)
        latents = scorer.encode(renderer.render(scene, cameras).image[:, 0].double())
        t = torch.full((6,), 300)
        noisy = scorer.schedule.signal(t) * latents
        return float(scorer.log_prob(noisy, t, scorer.condition(["Portrait of a zombie"] * 6)).mean())

    for _ in range(40):
        trainer.step()
    assert likelihood(trainer.renderer) > likelihood(trainer.reference) + 1


def test_steps_repeat_bit_for_bit_under_another_hash_seed():
    """Nothing may depend on the order of a set."""
    code = (
        "import hashlib, torch; from tests.training.test_trainer import *\n"
        "t = Trainer(toy(), method('ld-released'), batch=2); t.step(); t.step()\n"
        "print(hashlib.sha256(b''.join(p.detach().numpy().tobytes() for p in t.trained.values())).hexdigest())"
    )

    def run(seed):
        return subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout

    assert run("1") == run("2")


def test_without_rates_there_is_one_group_of_all_parameters_in_their_order():
    trainer = Trainer(toy(), method("sds"))
    (group,) = trainer.optimizer.param_groups
    assert all(a is b for a, b in zip(group["params"], trainer.trained.values(), strict=True))


@pytest.mark.parametrize("first", [1e-2, 3e-4])
def test_a_first_step_moves_each_parameter_by_its_rate(first):
    """Adam's first step is the learning rate times the sign of the gradient, up to its epsilon."""
    torch.manual_seed(0)
    trainer = Trainer(SlowDecoderToy().double(), method("sds"), lr=lambda step: first * 0.5**step)
    assert len(trainer.optimizer.param_groups) == 2
    before = {name: p.detach().clone() for name, p in trainer.trained.items()}
    trainer.gradients()
    clear = {name: p.grad.abs() > 1e-3 * p.grad.abs().max() for name, p in trainer.trained.items() if p.grad.any()}
    trainer.optimizer.zero_grad(set_to_none=True)
    trainer.step()
    moved = {name: (trainer.trained[name] - before[name])[where].abs() for name, where in clear.items()}
    for name, distance in moved.items():
        expected = first * (0.1 if name.startswith("decoder") else 1.0)
        torch.testing.assert_close(distance, torch.full_like(distance, expected), rtol=1e-2, atol=0)
    trainer.step()
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert rates == pytest.approx([first * 0.5, first * 0.05])


@pytest.mark.parametrize("rate", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_that_is_no_positive_number_is_refused_by_the_parameters_name(rate, monkeypatch):
    monkeypatch.setattr(SlowDecoderToy, "rate", lambda self, name: rate)
    with pytest.raises(ConfigError, match=r"rate of layers\.0\.weight must be a positive number"):
        Trainer(SlowDecoderToy(), method("sds"))


def test_the_learning_rate_falls_along_a_cosine():
    lr = cosine_decay(1.0, 0.1, 11)
    assert lr(0) == 1.0
    assert lr(10) == pytest.approx(0.1)
    assert lr(5) == pytest.approx(0.55)
    assert all(lr(i) > lr(i + 1) for i in range(10))


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [1, 2])
def test_a_step_in_micro_batches_is_the_step(name, size):
    """Also the second one, where LDIS reads the scenes of the step before."""
    whole, parts = (Trainer(toy(), method(name), batch=3, micro_batch=n, lr=lambda step: 1e-3) for n in (None, size))
    for _ in range(2):
        logs = [trainer.gradients() for trainer in (whole, parts)]
        assert logs[1].loss == pytest.approx(logs[0].loss, rel=1e-10)
        assert logs[1].figures.keys() == logs[0].figures.keys()
        for key, parameter in whole.trained.items():
            if parameter.grad is not None:
                torch.testing.assert_close(parts.trained[key].grad, parameter.grad, rtol=1e-9, atol=1e-14)
        for trainer, log in zip((whole, parts), logs):
            trainer.apply(log)


@pytest.mark.parametrize("name", METHODS)
def test_each_terms_own_gradients_add_up_to_the_step_and_leave_the_trainer_alone(name):
    trainer = Trainer(toy(), method(name), lr=lambda step: 1e-3)
    trainer.step()
    before = {key: p.detach().clone() for key, p in trainer.trained.items()}
    previous = trainer.previous
    own = trainer.term_gradients(trainer.step_number)
    assert list(own) == list(trainer.method.terms)
    assert trainer.previous is previous
    assert all(p.grad is None and torch.equal(p, before[key]) for key, p in trainer.trained.items())
    trainer.gradients()
    for key, parameter in trainer.trained.items():
        parts = [gradients[key] for gradients in own.values() if key in gradients]
        if parameter.grad is not None:
            torch.testing.assert_close(sum(parts), parameter.grad, rtol=1e-8, atol=1e-14)


def test_what_a_term_puts_on_the_pictures_is_its_gradient_there():
    trainer = Trainer(toy(), method("ld-released"))
    batch, pixels = trainer.look_at(0, "score")
    assert [view.mirrored for view in pixels] == [False, True]
    assert all(set(found) == {"image"} for found in pixels.values())
    term = trainer.method.terms["score"]
    images = [batch.trained.views[view].image for view in pixels]
    again = torch.autograd.grad(term.loss(batch, 0), images)
    for want, found in zip(again, pixels.values()):
        torch.testing.assert_close(found["image"], want)
    assert all(p.grad is None for p in trainer.trained.values())


def test_a_view_whose_values_nobody_reads_is_rendered_for_its_backward_alone(looks):
    seen = {}
    for rerender in (True, False):
        looks.clear()
        trainer = Trainer(toy(), method("ld at a noise"), rerender=rerender)
        trainer.gradients()
        own = [(view.mirrored, graph) for r, view, _, graph in looks if r is trainer.renderer and view.name == "main"]
        seen[rerender] = Counter(own)
    assert seen[True] == {(False, False): 1, (False, True): 1, (True, True): 1}  # the mirrored view has no first look
    assert seen[False] == {(False, True): 1, (True, True): 1}


def test_a_view_and_its_mirror_are_one_call_where_graphs_are_kept():
    trainer, calls = Trainer(toy(), method("ld at a noise"), rerender=False), []
    render = trainer.renderer.render
    trainer.renderer.render = lambda scene, cameras, **given: (
        calls.append(cameras.cam2world.shape[1]) or render(scene, cameras, **given)
    )
    trainer.gradients()
    assert calls == [2, 1, 1, 1, 1]  # the pair, and the grid's four


def test_a_gradient_above_the_limit_is_scaled_down_to_it_and_one_below_is_left():
    for limit, factor in ((None, 1.0), (1e9, 1.0), (1e-3, None)):
        trainer = Trainer(toy(), method("sds"), clip=limit, lr=lambda step: 1e-3)
        log = trainer.gradients()
        before = torch.cat([p.grad.flatten() for p in trainer.trained.values() if p.grad is not None])
        taken = []
        trainer.optimizer.step = lambda taken=taken, trainer=trainer: taken.append(
            torch.cat([p.grad.flatten() for p in trainer.trained.values() if p.grad is not None])
        )
        trainer.apply(log)
        want = before * (limit / before.norm() if factor is None else factor)
        torch.testing.assert_close(taken[0], want)


def test_the_average_follows_the_weights_and_is_what_is_published():
    trainer = Trainer(toy(), method("sds"), ema=0.5, lr=lambda step: 1e-2)
    start = {name: p.detach().clone() for name, p in trainer.trained.items()}
    trainer.step()
    inner = {name: p.detach().clone() for name, p in trainer.trained.items()}
    for name, average in trainer.averaged.items():
        torch.testing.assert_close(average, start[name].lerp(inner[name], 0.9))  # 1 - min(decay, 1 / 10)
    with trainer.published_weights():
        assert all(torch.equal(p, trainer.averaged[name]) for name, p in trainer.trained.items())
    assert all(torch.equal(p, inner[name]) for name, p in trainer.trained.items())


def test_the_learning_rate_rises_evenly_over_the_warm_up():
    plain, warmed = cosine_decay(1.0, 1.0, 100), cosine_decay(1.0, 1.0, 100, warmup=4)
    assert [warmed(step) for step in range(6)] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])
    assert [plain(step) for step in range(6)] == [1.0] * 6
