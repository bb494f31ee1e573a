"""The contract of a scorer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from distill3d.errors import ConfigError
from distill3d.schedule import Schedule
from distill3d.scorer import Economical, Scorer
from distill3d.testing.contract import (
    NotApplicable,
    Report,
    computing_dtype,
    difference,
    expect,
    expect_finite,
    expect_same,
    expect_shape,
    run_checks,
)
from distill3d.testing.economy_checks import economies_change_nothing, every_timestep_is_told_apart
from distill3d.testing.scorer_bench import ScorerBench

PROMPTS = ("Portrait of a zombie", "Pencil sketch portrait")


def check_scorer(scorer: Scorer, *, prompts: Sequence[str] = PROMPTS, tolerance: float | None = None) -> Report:
    """Check all that the objectives rely on, in about twenty predictions of one picture.

    Args:
        prompts: two that this scorer tells apart.
        tolerance: relative difference that batching may make; None chooses by the dtype of the weights.
    Returns:
        What was checked, and what could not be and why.
    Raises:
        ContractError: at the first broken promise.
    """
    expect(len(prompts) >= 2, "check_scorer", "two prompts", repr(prompts))
    expect(isinstance(scorer, Scorer), "The scorer", "a distill3d.scorer.Scorer", type(scorer).__name__)
    half = computing_dtype(scorer) in (torch.float16, torch.bfloat16)
    checks = (
        *CHECKS,
        *([every_timestep_is_told_apart] if half else []),
        *([economies_change_nothing] if isinstance(scorer, Economical) else []),
    )
    return run_checks(type(scorer).__name__, checks, ScorerBench(scorer, tuple(prompts[:2]), tolerance))


def declares_itself(bench: ScorerBench) -> None:
    """Declares image_size, latent_size, latent_channels, controls and weights_licence."""
    scorer = bench.scorer
    for name in ("image_size", "latent_size", "latent_channels"):
        size = getattr(scorer, name, None)
        expect(isinstance(size, int) and size > 0, name, "a positive integer", repr(size))
    whole = scorer.image_size % scorer.latent_size == 0
    expect(whole, "latent_size", f"a divisor of image_size ({scorer.image_size})", scorer.latent_size)
    named = isinstance(scorer.controls, tuple) and all(isinstance(name, str) for name in scorer.controls)
    expect(named, "controls", "a tuple of names", repr(scorer.controls))
    licence = scorer.weights_licence
    expect(isinstance(licence, str) and licence != "", "weights_licence", 'a name such as "Apache-2.0"', repr(licence))


def schedule_adds_noise(bench: ScorerBench) -> None:
    """The schedule's signal falls and its noise rises, as variance-preserving and flow models' do."""
    schedule = getattr(bench.scorer, "schedule", None)
    if not isinstance(schedule, Schedule):
        expect(False, "schedule", "a distill3d.schedule.Schedule", type(schedule).__name__)
        return
    signals, noises = schedule.signals, schedule.noises
    expect_shape("schedule.noises", noises, tuple(signals.shape))
    for name, table, sign in (("signals", signals, -1), ("noises", noises, 1)):
        inside = bool(((table >= 0) & (table <= 1)).all())
        expect(inside, f"schedule.{name}", "values in [0, 1]", f"{float(table.min()):.4g} to {float(table.max()):.4g}")
        monotone = bool((sign * table.diff() >= 0).all()) and float(table[0]) != float(table[-1])
        expect(monotone, f"schedule.{name}", "rising" if sign > 0 else "falling", "values that are not")
    variance = float((signals**2 + noises**2 - 1).abs().max())
    flow = float((signals + noises - 1).abs().max())
    known = min(variance, flow) < 1e-4
    expect(known, "schedule", "signal^2 + noise^2 = 1, or signal + noise = 1", f"off by {variance:.2g}, or {flow:.2g}")


def is_frozen(bench: ScorerBench) -> None:
    """No parameter asks for a gradient."""
    asking = [name for name, parameter in bench.scorer.named_parameters() if parameter.requires_grad]
    count = f"{len(asking)} that do, such as {asking[0] if asking else ''}"
    expect(not asking, "The scorer's parameters", "none with requires_grad", count)


def encodes_pictures(bench: ScorerBench) -> None:
    """encode gives finite latents of the declared shape, a picture's alone or beside others."""
    latents = expect_shape("encode", bench.latents, bench.latent_shape)
    expect(latents.dtype == bench.dtype, "encode", f"latents of the pictures' dtype {bench.dtype}", latents.dtype)
    expect_finite("encode", latents)
    with torch.no_grad():
        alone = bench.scorer.encode(bench.images[1:])
    expect_same("encode of one picture alone", alone, latents[1:], bench.tolerance, "its latents beside another")
    expect(difference(latents[:1], latents[1:]) > 1e-3, "encode of two pictures", "different latents", "equal ones")


def encoding_has_a_gradient(bench: ScorerBench) -> None:
    """encode is differentiable in the picture."""
    images = bench.images.clone().requires_grad_()
    latents = bench.scorer.encode(images)
    expect(latents.requires_grad, "encode of pictures that require grad", "latents with a graph", "none")
    (gradient,) = torch.autograd.grad((latents * bench.noise).sum(), images, allow_unused=True)
    if gradient is None:
        expect(False, "The gradient of encode", "one that reaches the pictures", "none")
    expect_finite("The gradient of encode", gradient)
    expect(bool((gradient != 0).any()), "The gradient of encode", "one that is not zero everywhere", "zeros")


def posterior_is_sampled(bench: ScorerBench) -> None:
    """encode with zero noise gives the posterior's mean, with other noise a sample."""
    with torch.no_grad():
        mean = bench.scorer.encode(bench.images, torch.zeros_like(bench.noise))
        sample = bench.scorer.encode(bench.images, bench.noise)
    expect_same("encode with zero noise", mean, bench.latents, bench.tolerance, "the latents without noise")
    expect_shape("encode with noise", sample, bench.latent_shape)
    expect_finite("encode with noise", sample)
    if difference(sample, bench.latents) == 0:
        raise NotApplicable("noise changes nothing: the encoder has no posterior")


def decodes_latents(bench: ScorerBench) -> None:
    """decode gives finite pictures of image_size."""
    with torch.no_grad():
        pictures = bench.scorer.decode(bench.latents)
    size = bench.scorer.image_size
    expect_finite("decode", expect_shape("decode", pictures, (2, 3, size, size)))


def predicts_every_branch(bench: ScorerBench) -> None:
    """predict_noise gives one finite prediction for each branch, the same twice, without a graph."""
    expect(isinstance(bench.together, dict), "predict_noise", "a dict by branch", type(bench.together).__name__)
    names = [*bench.together]
    expect(names == ["first", "second"], "predict_noise", "the branches 'first' and 'second'", names)
    for name, prediction in bench.together.items():
        expect_shape(f"predict_noise()[{name!r}]", prediction, bench.latent_shape)
        expect(prediction.dtype == bench.dtype, f"predict_noise()[{name!r}]", str(bench.dtype), prediction.dtype)
        expect_finite(f"predict_noise()[{name!r}]", prediction)
    timestep = bench.timesteps(0.5, 0.5)
    noisy = bench.scorer.schedule.add_noise(bench.latents, bench.noise, timestep)
    again = bench.scorer.predict_noise(noisy, timestep, bench.conditions)
    got = [name for name, prediction in again.items() if prediction.requires_grad]
    expect(not got, "predict_noise of frozen latents", "predictions without a graph", f"one in {', '.join(got)}")
    exact = 0.0 if bench.device.type == "cpu" else max(1e-5, bench.tolerance * 0.1)
    for name, prediction in again.items():
        expect_same(f"predict_noise()[{name!r}] twice", prediction, bench.together[name], exact, "the same")


def branches_do_not_mix(bench: ScorerBench) -> None:
    """A branch predicts the same alone as beside others, in whichever order."""
    timestep = bench.timesteps(0.5, 0.5)
    turned = bench.predict(timestep, dict(reversed(bench.conditions.items())))
    alone = bench.predict(timestep, {"second": bench.conditions["second"]})
    for got, how in ((alone, "alone"), (turned, "with the branches in another order")):
        what = f"predict_noise of one branch {how}"
        expect_same(what, got["second"], bench.together["second"], bench.tolerance, "what it is beside another")


def pictures_do_not_mix(bench: ScorerBench) -> None:
    """A picture gets the same prediction alone as beside others."""
    alone = bench.predict(bench.timesteps(0.5), {"first": bench.condition(bench.prompts[0], 1)}, slice(1, 2))["first"]
    expected = bench.together["first"][1:]
    expect_same("predict_noise of one picture alone", alone, expected, bench.tolerance, "what it is beside another")


def timesteps_belong_to_pictures(bench: ScorerBench) -> None:
    """Each picture is denoised at its own timestep."""
    both = bench.predict(bench.timesteps(0.2, 0.9), {"first": bench.conditions["first"]})["first"]
    for place, fraction in enumerate((0.2, 0.9)):
        pick = slice(place, place + 1)
        condition: dict[str, object] = {"first": bench.condition(bench.prompts[0], 1)}
        alone = bench.predict(bench.timesteps(fraction), condition, pick)["first"]
        what = f"predict_noise of picture {place} in a batch of two timesteps"
        expect_same(what, both[pick], alone, bench.tolerance, "what it is alone at its own timestep")


def prompts_matter(bench: ScorerBench) -> None:
    """Prompts belong to pictures: equal ones predict alike, different ones differ."""
    first, second = bench.prompts
    far = difference(bench.together["second"], bench.together["first"])
    expect(far > 1e-6, f"predict_noise for {first!r} and {second!r}", "different predictions", "equal ones")
    timestep = bench.timesteps(0.5, 0.5)
    with torch.no_grad():
        mixed = bench.scorer.condition([first, second])
    found = bench.predict(timestep, {"again": bench.condition(first, 2), "mixed": mixed})
    what = "predict_noise for an equal prompt, conditioned on again"
    expect_same(what, found["again"], bench.together["first"], bench.tolerance, "the same")
    expected = torch.cat([bench.together["first"][:1], bench.together["second"][1:]])
    what = "predict_noise with one prompt for each picture"
    expect_same(what, found["mixed"], expected, bench.tolerance, "each picture's own prompt followed")


def refuses_unknown_controls(bench: ScorerBench) -> None:
    """condition takes the declared controls, and raises ConfigError for any other."""
    picture = (bench.images + 1) / 2
    if bench.scorer.controls:
        pictures = dict.fromkeys(bench.scorer.controls, picture)
        with torch.no_grad():
            every = bench.scorer.condition([bench.prompts[0]] * 2, controls=pictures)
        prediction = bench.predict(bench.timesteps(0.5, 0.5), {"controlled": every})["controlled"]
        expect_finite("predict_noise with controls", expect_shape("with controls", prediction, bench.latent_shape))
    got = "a condition"
    try:
        bench.scorer.condition([bench.prompts[0]] * 2, controls={"no such control": picture})
    except ConfigError:
        return
    except Exception as error:
        got = f"{type(error).__name__}: {error}"
    expect(False, "condition with an unknown control", "distill3d.errors.ConfigError", got)


def prediction_is_the_noise(bench: ScorerBench) -> None:
    """At the last timestep the prediction is close to the noise that was drawn."""
    timestep = bench.timesteps(1.0, 1.0)
    prediction = bench.predict(timestep, {"empty": bench.condition("", 2)})["empty"].flatten().double()
    noise = bench.noise.flatten().double()
    cosine = float(F.cosine_similarity(prediction, noise, dim=0))
    what = f"predict_noise of pure noise (t = {int(timestep[0])})"
    hint = " (the sign is wrong: is it a score?)" if cosine < -0.5 else " (is it a velocity or an x_0?)"
    expect(cosine > 0.5, what, "a cosine to the noise above 0.5", f"{cosine:.2f}{hint}")
    size = float(prediction.norm() / noise.norm())
    expect(0.5 < size < 2, what, "about the size of the noise", f"{size:.2g} times its size")


CHECKS = (
    declares_itself,
    schedule_adds_noise,
    is_frozen,
    encodes_pictures,
    encoding_has_a_gradient,
    posterior_is_sampled,
    decodes_latents,
    predicts_every_branch,
    branches_do_not_mix,
    pictures_do_not_mix,
    timesteps_belong_to_pictures,
    prompts_matter,
    refuses_unknown_controls,
    prediction_is_the_noise,
)
