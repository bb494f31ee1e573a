"""The released script's gradient on fixed tensors, to 1e-5 relative (tests/data/ld_golden.safetensors).

The file holds what the released code computes, made by running it on a stub pipeline.
"""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from distill3d.objectives import LDLoss
from distill3d.objectives.guidance import guidance_table, guide
from distill3d.objectives.rank import rank_weight, restore_statistics
from distill3d.schedule import Schedule
from distill3d.views import join_mirrored

GOLDEN = load_file(Path(__file__).parents[1] / "data" / "ld_golden.safetensors")
STEPS = [35, 42, 49]
NO_RANK = {"rank_weights": None, "rank_restore": False}
SDS = {"weighting": "released_sds", "noise_baseline": 1.0}
CASES = {  # how each of the file's variants is said here; a mask is applied where the name says so
    "ld": NO_RANK,
    "ld_rank": {},
    "ld_mask": NO_RANK,
    "ld_rank_mask": {},
    "sds": {**NO_RANK, **SDS},
    "sds_rank": SDS,
    "sds_rank_mask": SDS,
    "ld_rank_div1": {"scale": 1.0},
}
SCORER = SimpleNamespace(schedule=Schedule.from_alpha_bar(GOLDEN["alphas_cumprod"]))
BRANCHES = {"prompt": GOLDEN["eps_text"], "empty": GOLDEN["eps_uncond"]}


def timestep(k):
    t = int(GOLDEN["ddim_timesteps"][k])
    assert t == 981 - 20 * k
    return torch.full((2,), t)


def assert_close(got, want):
    assert (got - want).norm() <= 1e-5 * want.norm()


def test_every_gradient_of_the_file_is_compared():
    names = {key.split(".", 2)[2] for key in GOLDEN if ".grad" in key}
    assert names == set(CASES)
    assert {key.split(".")[0] for key in GOLDEN if ".grad" in key} == {f"k{k}" for k in STEPS}


@pytest.mark.parametrize("k", STEPS)
@pytest.mark.parametrize("name", CASES)
def test_the_released_gradient_and_its_mirror(name, k):
    loss = LDLoss.released(SCORER, **CASES[name])
    mask = GOLDEN["mask"] if "mask" in name else None
    gradient = loss.latent_gradient(BRANCHES, GOLDEN["noise"], timestep(k), mask)
    assert_close(gradient, GOLDEN[f"k{k}.grad.{name}"])

    own, mirrored = torch.zeros(2, *gradient.shape).unbind()
    own, mirrored = own.requires_grad_(), mirrored.requires_grad_()
    (join_mirrored(own, mirrored, loss.mirror_weights) * gradient).sum().backward()
    assert_close(own.grad, 0.75 * GOLDEN[f"k{k}.grad.{name}"])
    assert_close(mirrored.grad, 0.25 * GOLDEN[f"k{k}.grad_mirror.{name}"])


@pytest.mark.parametrize("k", STEPS)
def test_the_printed_equation(k):
    gradient = LDLoss(SCORER).latent_gradient(BRANCHES, GOLDEN["noise"], timestep(k))
    assert_close(gradient, GOLDEN[f"k{k}.paper_ld_cfg"])


def test_the_score_before_and_after_rank_weighting():
    _, score = guide(BRANCHES, guidance_table("guidance", 7.5))
    assert_close(score, GOLDEN["score"])
    assert_close(rank_weight(score), GOLDEN["score_svd"])
    assert_close(restore_statistics(rank_weight(score), score), GOLDEN["score_rank"])


@pytest.mark.parametrize("k", STEPS)
def test_noising_and_the_denoised_estimate(k):
    schedule, t = SCORER.schedule, timestep(k)
    noisy = schedule.add_noise(GOLDEN["latents"], GOLDEN["noise"], t)
    assert_close(noisy, GOLDEN[f"k{k}.x_t"])
    guided = sum(guide(BRANCHES, guidance_table("full", 7.5)))
    assert_close(schedule.denoised(noisy, guided, t), GOLDEN[f"k{k}.x0_latent"])
