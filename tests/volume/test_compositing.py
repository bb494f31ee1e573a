import math

import pytest
import torch
import torch.nn.functional as F

from distill3d.cameras import orbit
from distill3d.errors import ShapeError
from distill3d.volume import along, composite_midpoints, composite_samples, pixel_rays, ray_weights, stratified


def random_ray(*shape: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    t = torch.rand(*shape, generator=g, dtype=torch.float64).cumsum(-1)
    density = 3 * torch.rand(*shape, generator=g, dtype=torch.float64)
    return t, density, torch.rand(*shape, 4, generator=g, dtype=torch.float64)


@pytest.mark.parametrize("count", [1, 7, 64])
def test_a_uniform_box_has_the_closed_form_opacity(count):
    """1 - exp(-sigma d), whatever the number of samples; a white box is that bright."""
    sigma, near, far = 2.5, 1.0, 1.8
    t = stratified(near, far, count)
    ray = composite_samples(t, (far - near) / count, torch.full((count,), sigma), torch.ones(count, 3))
    expected = 1 - math.exp(-sigma * (far - near))
    torch.testing.assert_close(ray.opacity, torch.tensor([expected]))
    torch.testing.assert_close(ray.values, torch.full((3,), expected))


def test_the_midpoint_form_has_the_same_closed_form():
    t = torch.linspace(1, 1.8, 9)
    ray = composite_midpoints(t, torch.full((9,), 2.5), torch.ones(9, 3))
    torch.testing.assert_close(ray.opacity, torch.tensor([1 - math.exp(-2.5 * 0.8)]))


def test_midpoints_average_the_raw_density_before_the_activation():
    t, values = torch.tensor([1.0, 1.5]), torch.tensor([[0.0], [1.0]])
    ray = composite_midpoints(t, torch.tensor([-4.0, 8.0]), values, lambda x: F.softplus(x - 1))
    weight = 1 - math.exp(-0.5 * math.log(1 + math.e ** (2 - 1)))
    torch.testing.assert_close(ray.weights, torch.tensor([weight]))
    torch.testing.assert_close(ray.values, torch.tensor([0.5 * weight]))
    torch.testing.assert_close(ray.depth, torch.tensor([1.25 * weight]))


def test_weights_sum_to_the_opacity_and_match_the_product_form():
    t, density, values = random_ray(5, 9)
    ray = composite_samples(t, 0.3, density, values)
    alpha = 1 - torch.exp(-density * 0.3)
    free = torch.cat([torch.ones(5, 1, dtype=torch.float64), (1 - alpha).cumprod(-1)], -1)
    torch.testing.assert_close(ray.weights, alpha * free[:, :-1])
    torch.testing.assert_close(ray.opacity[:, 0], ray.weights.sum(-1))
    torch.testing.assert_close(ray.opacity[:, 0], 1 - free[:, -1])
    torch.testing.assert_close(ray.values, torch.einsum("rn,rnc->rc", ray.weights, values))


def test_nothing_is_seen_behind_a_wall():
    t = torch.linspace(1, 2, 6)
    values = torch.arange(6.0)[:, None]
    ray = composite_samples(t, 0.2, torch.tensor([0.0, 0.0, 1e6, 5.0, 5.0, 5.0]), values)
    torch.testing.assert_close(ray.weights, torch.tensor([0.0, 0.0, 1.0, 0.0, 0.0, 0.0]))
    torch.testing.assert_close(ray.depth, t[2:3])


def test_an_opaque_sphere_is_as_deep_as_geometry_says():
    """Distance to a sphere of radius 0.25 from every pixel that meets it, within one step."""
    origins, directions = pixel_rays(orbit(torch.tensor([[0.7]]), torch.tensor([[0.2]])), 16, 16)
    t = stratified(torch.full((1, 1, 256), 2.3), torch.full((1, 1, 256), 3.1), 400)
    points = along(origins, directions, t)
    ray = composite_samples(t, 0.8 / 400, 1e5 * (points.norm(dim=-1) < 0.25), points)
    half_b = (origins * directions).sum(-1)
    gap = half_b**2 - (2.7**2 - 0.25**2)
    hit = gap > 1e-3
    torch.testing.assert_close(ray.depth[..., 0][hit], (-half_b - gap.clamp(min=0).sqrt())[hit], atol=0.002, rtol=0)
    assert (ray.opacity[..., 0][gap < 0] == 0).all()


def test_mean_depth_of_an_empty_ray_is_the_far_end():
    t = torch.linspace(1, 2, 4).expand(2, 4)
    density = torch.stack([torch.zeros(4), torch.full((4,), 0.1)])
    depth = composite_samples(t, 0.25, density, torch.ones(2, 4, 1)).mean_depth(1.0, 2.0)
    assert depth[0].item() == 2.0
    assert 1.4 < depth[1].item() < 1.5


@pytest.mark.parametrize("form", ["samples", "midpoints"])
def test_gradients_are_those_of_finite_differences(form):
    t, density, values = (x.requires_grad_() for x in random_ray(2, 5))

    def gathered(t, density, values):
        ray = (
            composite_samples(t, 0.3, density, values) if form == "samples" else composite_midpoints(t, density, values)
        )
        return ray.values, ray.depth, ray.opacity

    assert torch.autograd.gradcheck(gathered, (t, density, values))


def test_gradients_stay_finite_behind_a_wall():
    density = torch.tensor([0.0, 1e8, 0.0, 3.0]).requires_grad_()
    ray_weights(density, 0.1).square().sum().backward()
    assert density.grad is not None
    assert density.grad.isfinite().all()


def test_no_weight_or_gradient_is_denormal():
    """Such numbers are right, and many times slower on a CPU: a solid head would be full of them."""
    density = torch.logspace(-3, 6, 400).requires_grad_()
    weights = ray_weights(density, 0.02)
    (slope,) = torch.autograd.grad(weights.square().sum(), density)
    for numbers in (weights, slope):
        assert ((numbers == 0) | (numbers.abs() > torch.finfo(torch.float32).tiny)).all()


def test_shapes_that_do_not_belong_together_are_refused():
    with pytest.raises(ShapeError, match="A ray of n samples"):
        composite_samples(torch.rand(4), 0.1, torch.rand(4), torch.rand(5, 3))
