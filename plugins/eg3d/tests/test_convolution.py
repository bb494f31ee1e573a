"""The fast forms against the published recipe, values and gradients."""

import pytest
import torch
from heads import blob

from distill3d_eg3d.convolution import FIR, GAIN, SLOPE, Fast, Kernel, Literal

STYLES = pytest.mark.parametrize("styles", [1, 3], ids=["one style", "a style each"])


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64)


def with_gradients(compute, *leaves):
    leaves = [leaf.clone().requires_grad_() for leaf in leaves]
    result = compute(*leaves)
    return [result, *torch.autograd.grad(result.sin().sum(), leaves)]


@STYLES
@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("clamp", [None, 0.5])
@pytest.mark.parametrize("noisy", [False, True])
def test_a_layer_and_its_gradients_are_those_of_the_recipe(styles, up, clamp, noisy):
    size = 10 if up else 5
    leaves = [random(3, 4, 5, 5), random(styles, 4) + 1, random(6, 4, 3, 3), random(6), random(size, size)]

    def layer(convolution):
        def compute(x, style, weight, bias, noise):
            result = convolution.layer(x, style, Kernel(weight, bias, FIR, up, clamp), noise if noisy else None)
            return result + 0 * noise.sum()

        return compute

    fast, literal = (with_gradients(layer(form), *leaves) for form in (Fast(), Literal()))
    assert fast[0].shape == (3, 6, size, size)
    if clamp is not None:
        assert (fast[0].abs() == clamp).any() and (fast[0].abs() < clamp).any()
    for ours, theirs in zip(fast, literal):
        torch.testing.assert_close(ours, theirs, atol=1e-9, rtol=1e-7)


@STYLES
def test_a_picture_and_its_gradients_are_those_of_the_recipe(styles):
    leaves = [random(3, 4, 5, 5), random(styles, 4), random(2, 4, 1, 1), random(2)]
    fast, literal = (with_gradients(form.to_picture, *leaves) for form in (Fast(), Literal()))
    for ours, theirs in zip(fast, literal):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("size", [1, 4, 7])
def test_a_doubled_picture_is_that_of_the_recipe_up_to_its_rim(size):
    picture = random(2, 3, size, size)
    fast, literal = (with_gradients(lambda p, form=form: form.doubled(p, FIR), picture) for form in (Fast(), Literal()))
    for ours, theirs in zip(fast, literal):
        torch.testing.assert_close(ours, theirs, atol=1e-7, rtol=1e-6)  # the filter is float32
    assert fast[0].shape == (2, 3, 2 * size, 2 * size)


def test_a_constant_picture_stays_so_away_from_its_rim():
    doubled = Fast().doubled(torch.full((1, 1, 6, 6), 0.3), FIR)
    torch.testing.assert_close(doubled[..., 1:-1, 1:-1], torch.full((1, 1, 10, 10), 0.3))
    assert doubled[..., 0, :].max() < 0.3


def test_demodulation_keeps_unit_variance():
    x, weight = torch.randn(1, 64, 32, 32), 7 * torch.randn(16, 64, 3, 3)
    kernel = Kernel(weight, torch.zeros(16), FIR, False, None)
    y = Fast().layer(x, torch.rand(1, 64) + 0.5, kernel, None) / GAIN
    before = torch.where(y > 0, y, y / SLOPE)
    assert before.std() == pytest.approx(1, abs=0.05)


def test_small_styles_are_demodulated_as_in_the_recipe():
    """There the epsilon counts, whose share must not change as styles are brought to 1."""
    x, style = random(2, 4, 5, 5), 1e-4 * (random(2, 4) + 2)
    kernel = Kernel(random(6, 4, 3, 3), random(6), FIR, False, None)
    fast, literal = (form.layer(x, style, kernel, None) for form in (Fast(), Literal()))
    torch.testing.assert_close(fast, literal, atol=1e-9, rtol=1e-7)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_features_in_half_precision_do_not_overflow_and_stay_near(dtype):
    """Styles of 10^4 would, without bringing the largest to 1 first."""
    x, style = torch.randn(2, 8, 6, 6), 1e4 * (torch.rand(2, 8) + 0.5)
    kernel = Kernel(torch.randn(5, 8, 3, 3), torch.randn(5), FIR, False, 256.0)
    exact = Fast().layer(x, style, kernel, None)
    half = Fast().layer(x.to(dtype), style, kernel, None)
    assert half.dtype == dtype
    assert (half.float() - exact).norm() < 0.02 * exact.norm()


def test_a_step_back_through_both_forms_of_the_whole_network_agrees():
    """In double precision, so that no kink of a leaky ReLU lies between them."""
    from distill3d_eg3d.generator import Generator

    fast = blob(neural_resolution=16, samples=8).generator.double()
    literal = Generator(fast.architecture, reference=True).double()
    literal.load_state_dict(fast.state_dict())
    ws, found = random(1, *[14, 512]) * 0.1, []
    for network in (fast, literal.requires_grad_(False)):
        leaf = ws.clone().requires_grad_()
        planes = network.planes(leaf)
        raw = planes[:, 0, :3, :16, :16]
        picture = network.superresolution(raw, planes[:, 1, :, :16, :16], leaf[:, -1])
        found.append([picture, *torch.autograd.grad(picture.sin().sum(), leaf)])
    for ours, theirs in zip(*found):
        assert (ours - theirs).norm() < 1e-6 * theirs.norm()
