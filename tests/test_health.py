"""Health says 1, 1, 0 of an untouched renderer and collapsed of a mean head; a probe knows signal from noise."""

import json
import math
from types import SimpleNamespace

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.health import COLLAPSE, Health, HealthCheck, TermHealth, collapsed, kept_differences, probe
from distill3d.renderer import RunDefaults
from distill3d.scorers.gaussian import GaussianScorer
from tests.toys import ToyTriplane, toy

SCORER = GaussianScorer(latent_size=8)


class MeanHead(ToyTriplane):
    """The toy in which every subject looks like the mean of all."""

    def scene(self, codes):
        return super().scene(torch.zeros_like(codes))


def pair(kind=ToyTriplane):
    torch.manual_seed(0)
    other = kind()
    other.load_state_dict(toy(dtype=torch.float32).state_dict())
    return toy(dtype=torch.float32), other


def test_an_untouched_renderer_is_as_diverse_and_the_same_people():
    health = HealthCheck(*pair(), SCORER).check(7)
    assert health.step == 7
    assert health.diversity == pytest.approx(1, abs=1e-6)
    assert health.identity == pytest.approx(1, abs=1e-6)
    assert health.change == 0
    assert health.kept == pytest.approx(1)
    assert not collapsed(health)


def test_a_mean_head_is_collapsed():
    health = HealthCheck(*pair(MeanHead), SCORER).check(0)
    assert health.diversity == pytest.approx(0, abs=1e-6)
    assert math.isnan(health.identity)  # of distances that are all equal
    assert health.change > 0
    assert health.kept == pytest.approx(0, abs=1e-6)
    assert collapsed(health)


def test_an_equal_change_of_all_changes_them_and_leaves_them_apart():
    """A style, drawn: the same constant on every latent."""

    class Tinted(ToyTriplane):
        def render(self, *arguments, **named):
            render = super().render(*arguments, **named)
            return render.map(lambda picture: picture + 0.5)

    health = HealthCheck(*pair(Tinted), SCORER).check(0)
    assert health.diversity == pytest.approx(1, abs=1e-3)
    assert health.identity == pytest.approx(1, abs=1e-3)
    assert health.change > 0.1
    assert health.kept == pytest.approx(1, abs=1e-3)


def test_subjects_that_change_places_are_as_diverse_and_other_people():
    class Swapped(ToyTriplane):
        def codes_of_seeds(self, seeds):
            return super().codes_of_seeds([seed * 7 % 10 for seed in seeds])

    reference, swapped = pair(Swapped)
    health = HealthCheck(reference, swapped, SCORER, seeds=range(10)).check(0)
    assert health.diversity == pytest.approx(1, abs=1e-6)  # the same ten in another order
    assert abs(health.identity) < 0.5
    assert health.change > 0.5
    assert collapsed(health)  # nobody is left, though everybody differs


def test_the_original_is_looked_at_once_and_the_other_as_it_is_at_each_check():
    reference, trained = pair()
    looks = []
    original_scene = reference.scene
    reference.scene = lambda codes: looks.append(1) or original_scene(codes)
    check = HealthCheck(reference, trained, SCORER)
    assert check.check(0).change == 0
    with torch.no_grad():
        trained.superres.bias += 0.3
    assert check.check(1).change > 0
    assert len(looks) == len(check.seeds)


def test_a_backbone_without_use_for_super_resolution_is_looked_at_before_it():
    reference, trained = pair()
    for renderer in (reference, trained):
        renderer.defaults = RunDefaults(stage="raw", front=renderer.defaults.front)
        renderer.superres.forward = None  # calling it would raise
    assert HealthCheck(reference, trained, SCORER).check(0).diversity == pytest.approx(1, abs=1e-6)


def test_originals_that_are_all_equal_say_nothing():
    """A run on one photograph: whatever becomes of it, nothing collapsed."""
    trained = pair(MeanHead)[1]
    health = HealthCheck(trained, trained, SCORER).check(0)
    assert math.isnan(health.diversity) and math.isnan(health.change) and math.isnan(health.kept)
    assert not collapsed(health)
    line = json.loads(health.to_json())
    assert line.pop("collapse_below") == COLLAPSE
    nothing = dict.fromkeys(["diversity", "identity", "change", "kept"])
    assert line == {"step": 0, **nothing, "finite": True, "terms": {}, "collapsed": False}


def test_pictures_that_are_not_finite_are_told_from_originals_that_are_equal():
    reference, trained = pair()
    with torch.no_grad():
        next(iter(trained.trainable().values())).fill_(math.nan)
    assert HealthCheck(reference, reference, SCORER).check(0).finite
    assert not HealthCheck(reference, trained, SCORER).check(0).finite


def test_what_is_kept_is_the_slope_of_the_pairwise_differences():
    """Against the sum over pairs, written out."""
    now, before = torch.randn(2, 6, 4, 3, 3, dtype=torch.float64)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    inner = lambda x, y: sum(float(((x[i] - x[j]) * (y[i] - y[j])).sum()) for i, j in pairs)  # noqa: E731
    assert kept_differences(now, before) == pytest.approx(inner(now, before) / inner(before, before))
    assert kept_differences(0.4 * before + 7, before) == pytest.approx(0.4)


def test_two_subjects_are_too_few():
    with pytest.raises(ConfigError, match="at least three"):
        HealthCheck(*pair(), SCORER, seeds=[1, 2, 2])


def test_the_line_is_json_with_all_numbers():
    health = Health(3, 0.9, 0.8, 0.7, 0.6, terms={"score": TermHealth(2.0, math.inf, {"grid": -0.5})})
    line = health.to_json()
    assert "\n" not in line
    assert json.loads(line)["terms"] == {"score": {"norm": 2.0, "snr": None, "cosines": {"grid": -0.5}}}
    assert not collapsed(Health(0, 0.0, 0.0, 0.0, COLLAPSE)) and collapsed(Health(0, 1.0, 1.0, 1.0, COLLAPSE - 1e-6))


class Noisy:
    """Gradients whose signal and noise are known; a stand-in for a trainer."""

    def __init__(self, signal, noise, size=1000, every=(1, 1), step=0):
        self.signal, self.noise, self.size, self.step_number, self.asked = signal, noise, size, step, []
        terms = {name: SimpleNamespace(every=n) for name, n in zip("ab", every)}
        self.method = SimpleNamespace(terms=terms)

    def term_gradients(self, step):
        self.asked.append(step)
        g = torch.Generator().manual_seed(step)
        draw = [torch.randn(self.size, generator=g) for _ in range(2)]
        one = torch.ones(self.size) / self.size**0.5
        made = {
            "a": self.signal * one + self.noise * draw[0] / self.size**0.5,
            "b": -self.signal * one + self.noise * draw[1] / self.size**0.5,
        }
        return {name: {"first": t[:10], "rest": t[10:]} for name, t in made.items()}


@pytest.mark.parametrize(("signal", "noise"), [(3.0, 1.0), (1.0, 1.0), (0.3, 1.0)])
def test_the_ratio_is_that_of_signal_and_noise(signal, noise):
    """In n dimensions the estimate from D draws errs by about 1/sqrt(n D): here by some percent."""
    found = probe(Noisy(signal, noise, size=20_000), draws=8)
    for term in found.values():
        assert term.snr == pytest.approx(signal / noise, rel=0.05)
        assert term.norm == pytest.approx(math.hypot(signal, noise), rel=0.02)
    expected = -(signal**2) / (signal**2 + noise**2)
    assert found["a"].cosines == {"b": pytest.approx(expected, abs=0.02)}
    assert found["b"].cosines == {"a": pytest.approx(expected, abs=0.02)}


def test_the_ratio_is_unbiased_where_norms_would_call_noise_a_signal():
    """|mean of two draws| is never 0: the mean over pairs of <g_i, g_j> is, in the mean over many probes."""
    signals = []
    for first in range(0, 400, 2):
        trainer = Noisy(0.0, 1.0, size=50, step=first)
        draws = [torch.cat(list(trainer.term_gradients(first + i)["a"].values())) for i in range(2)]
        signals.append(float(draws[0] @ draws[1]))
    assert abs(sum(signals) / len(signals)) < 0.03  # the naive estimate, |mean|^2, is 0.5
    ratios = [probe(Noisy(0.0, 1.0, size=50, step=step))["a"].snr for step in range(0, 40, 2)]
    assert min(ratios) == 0.0
    assert max(ratios) < 0.8


def test_without_noise_the_ratio_is_infinite_and_without_gradient_there_is_none():
    assert probe(Noisy(1.0, 0.0))["a"].snr == math.inf
    silent = probe(Noisy(0.0, 0.0))["a"]
    assert silent.norm == 0 and math.isnan(silent.snr) and math.isnan(silent.cosines["b"])


def test_all_terms_are_asked_for_at_steps_at_which_all_are_due():
    trainer = Noisy(1.0, 1.0, every=(2, 3), step=7)
    probe(trainer, draws=3)
    assert trainer.asked == [12, 18, 24]


def test_one_draw_is_too_few():
    with pytest.raises(ConfigError, match="at least 2"):
        probe(Noisy(1.0, 1.0), draws=1)
