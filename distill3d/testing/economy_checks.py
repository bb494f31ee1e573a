"""The promises of a scorer that saves memory, and of one that computes in half precision."""

from __future__ import annotations

from dataclasses import fields, replace

import torch
from torch import Tensor

from distill3d.scorer import Economical, Economy, encode_at_unit_scale
from distill3d.testing.contract import expect, expect_same
from distill3d.testing.scorer_bench import ScorerBench


def economies_change_nothing(bench: ScorerBench) -> None:
    """A scorer with the capability `Economical` gives the same with each economy, and with all of them."""
    scorer = bench.scorer
    assert isinstance(scorer, Economical)  # asked for by check_scorer
    before, names = scorer.economy, [field.name for field in fields(Economy)]
    wanted = [{name: True} for name in names] + [dict.fromkeys(names, True)]
    try:
        scorer.economise(Economy())
        expected = _results(bench)
        for switches in wanted:
            economy = replace(Economy(), **switches)
            scorer.economise(economy)
            expect(scorer.economy == economy, "economy after economise", str(economy), scorer.economy)
            for what, result in _results(bench).items():
                how = f"{what} with {' and '.join(switches)}"
                expect_same(how, result, expected[what], bench.tolerance, "what it is without")
    finally:
        scorer.economise(before)


def _results(bench: ScorerBench) -> dict[str, Tensor]:
    """Of a step, in its order: the encoder's backward comes after the predictions."""
    images = bench.images.clone().requires_grad_()
    latents = encode_at_unit_scale(bench.scorer, images)
    found = {f"predict_noise()[{name!r}]": x for name, x in _predictions(bench, latents.detach()).items()}
    with torch.no_grad():
        found["decode"] = bench.scorer.decode(latents.detach())
    (gradient,) = torch.autograd.grad((latents * bench.noise).sum(), images)
    return {"encode": latents.detach(), "The gradient of encode": gradient, **found}


def _predictions(bench: ScorerBench, latents: Tensor) -> dict[str, Tensor]:
    timestep = bench.timesteps(0.5, 0.5)
    with torch.no_grad():
        noisy = bench.scorer.schedule.add_noise(latents, bench.noise, timestep)
        return bench.scorer.predict_noise(noisy, timestep, bench.conditions)


def every_timestep_is_told_apart(bench: ScorerBench) -> None:
    """In half precision timesteps are not rounded: bfloat16 knows one number of four above 512."""
    last = len(bench.scorer.schedule) - 1
    condition = {"first": bench.conditions["first"]}
    seen: list[Tensor] = []
    for timestep in range(max(0, last - 3), last + 1):
        t = torch.full((2,), timestep, device=bench.device)
        with torch.no_grad():
            seen.append(bench.scorer.predict_noise(bench.noise, t, condition)["first"])
    same = [last - len(seen) + 1 + i for i in range(1, len(seen)) if torch.equal(seen[i], seen[i - 1])]
    got = f"equal ones at {', '.join(f'{t - 1} and {t}' for t in same)}"
    expect(not same, "predict_noise at timesteps next to each other", "different predictions", got)
