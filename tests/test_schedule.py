"""One schedule for all models: signal, noise, and Tweedie's estimate."""

import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.schedule import Schedule


def test_it_is_stable_diffusions():
    from diffusers import DDIMScheduler

    theirs = DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear").alphas_cumprod
    ours = Schedule.scaled_linear().signals ** 2
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-5, atol=1e-7)


def test_signal_and_noise_share_one_variance():
    schedule = Schedule.scaled_linear()
    torch.testing.assert_close(schedule.signals**2 + schedule.noises**2, torch.ones(1000).double())


def test_denoising_with_the_true_noise_gives_the_picture_back():
    schedule, t = Schedule.scaled_linear(), torch.tensor([0, 500, 999])
    clean, noise = torch.randn(2, 3, 4, 8, 8, dtype=torch.float64)
    noisy = schedule.add_noise(clean, noise, t)
    torch.testing.assert_close(schedule.denoised(noisy, noise, t), clean)


def test_a_timestep_outside_is_refused():
    with pytest.raises(ConfigError, match=r"\[0, 1000\), got \[1000\]"):
        Schedule.scaled_linear().signal(torch.tensor([1000]))
