"""Time for memory: each economy leaves the results alone, and saves what it says it saves."""

import pytest
import torch

from distill3d.scorer import Economy, encode_at_unit_scale
from distill3d.scorers.diffusers import load_tiny
from distill3d.scorers.economy import Offload
from distill3d.testing import check_scorer
from distill3d.testing.saved_bytes import SavedBytes
from tests.scorers.networks import encoded, predicted, small, smooth_pictures, tiny_autoencoder

KNOBS = ("recompute_encoder", "sliced_decoder", "branches_apart", "offload")
PARTS = ("text_encoder", "vae", "unet", "controlnets.depth", "controlnets.canny")


@pytest.fixture(scope="module")
def embedded():
    return load_tiny()


@pytest.fixture
def far_away(monkeypatch):
    """A device whose memory is not the main one: weights that were sent away cannot be computed with."""

    def send_away(offload, name):
        for weight, waiting in offload.weights[name]:
            weight.data = waiting.new_empty(0)

    monkeypatch.setattr(Offload, "helps", staticmethod(lambda device: True))
    monkeypatch.setattr(Offload, "_waiting", lambda offload, weight: weight.detach().clone())
    monkeypatch.setattr(Offload, "_send_away", send_away)


def results(scorer):
    """All that a step asks for, in its order: the encoder's backward comes last."""
    size = scorer.image_size
    images, control = smooth_pictures(2, size).requires_grad_(), smooth_pictures(2, size).abs()
    latents = encode_at_unit_scale(scorer, images)
    predictions = predicted(scorer, depth=control)
    pictures = scorer.decode(latents.detach())
    (gradient,) = torch.autograd.grad((latents * predictions["prompt"]).sum(), images)
    return {"latents": latents.detach(), "pictures": pictures, "gradient": gradient, **predictions}


def assert_same(found, expected, tolerance):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        far = float((found[name] - tensor).norm() / tensor.norm())
        assert far <= tolerance, (name, far)


@pytest.mark.parametrize("knob", KNOBS)
def test_no_economy_changes_a_result(embedded, knob, far_away):
    scorer = small(embedded)
    expected = results(scorer)
    scorer.economise(Economy(**{knob: True}))
    assert scorer.economy == Economy(**{knob: True})
    assert_same(results(scorer), expected, 0.0 if knob == "offload" else 1e-5)
    scorer.economise(Economy())
    assert_same(results(scorer), expected, 0.0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_all_economies_together_and_in_every_precision(embedded, far_away, dtype):
    scorer = small(embedded, dtype=dtype)
    expected = results(scorer)
    scorer.economise(Economy(True, True, True, True))
    assert_same(results(scorer), expected, 1e-5 if dtype == torch.float32 else 3e-2)


def test_a_single_picture_is_encoded_bit_for_bit_alike_with_recomputation(embedded):
    scorer, images = small(embedded), smooth_pictures(1, 16)
    expected = encoded(scorer, images)
    scorer.economise(Economy(recompute_encoder=True))
    assert all(torch.equal(a, b) for a, b in zip(encoded(scorer, images), expected))


def kept_by_encoding(scorer, count):
    """Bytes that autograd keeps for the backward of `count` pictures."""
    images = smooth_pictures(count, scorer.image_size).requires_grad_()
    with SavedBytes(ignore=scorer.parameters()) as saved:
        latents = scorer.encode(images)
        live = saved.live
    del latents
    return live


@pytest.mark.parametrize("kind", ["vae", "tiny"])
def test_recomputation_keeps_a_fraction_for_the_backward(embedded, kind):
    scorer = embedded if kind == "vae" else small(embedded, vae=tiny_autoencoder())
    plain = kept_by_encoding(scorer, 2)
    scorer.economise(Economy(recompute_encoder=True))
    kept = kept_by_encoding(scorer, 2)
    scorer.economise(Economy())
    assert 0 < kept < (0.35 if kind == "vae" else 0.6) * plain


def test_recomputation_computes_again_block_by_block_and_picture_by_picture(embedded):
    """So the backward holds the activations of one residual block of one picture at a time."""
    scorer, images = small(embedded), smooth_pictures(3, 16).requires_grad_()
    scorer.economise(Economy(recompute_encoder=True))
    calls = []
    for name, net in scorer.vae.encoder.named_modules():
        if name.endswith("conv1"):
            net.register_forward_hook(lambda net, given, out, name=name: calls.append((name, len(given[0]))))
    latents = scorer.encode(images)
    forward, calls[:] = list(calls), []
    latents.sum().backward()
    assert len(forward) == 3 * 4 and {count for _, count in forward} == {1}  # two blocks of two sizes in the middle
    one = forward[:4]
    assert forward == 3 * one and calls == 3 * one[::-1]


def test_without_a_gradient_nothing_is_recomputed(embedded):
    scorer, sizes = small(embedded), []
    scorer.economise(Economy(recompute_encoder=True))
    scorer.vae.encoder.register_forward_hook(lambda net, given, out: sizes.append(len(given[0])))
    scorer.encode(smooth_pictures(2, 16))
    with torch.no_grad():
        scorer.encode(smooth_pictures(2, 16).requires_grad_())
    assert sizes == [2, 2]


def test_a_failure_inside_the_encoder_leaves_it_as_it_was(embedded):
    scorer = small(embedded)
    scorer.economise(Economy(recompute_encoder=True))
    with pytest.raises(RuntimeError):
        scorer.encode(torch.zeros(1, 7, 16, 16, requires_grad=True))
    assert not [name for name, net in scorer.vae.named_modules() if "forward" in vars(net)]


def test_a_sliced_decoder_sees_one_picture_at_a_time(embedded):
    scorer, sizes = small(embedded), []
    scorer.vae.decoder.register_forward_hook(lambda net, given, out: sizes.append(len(given[0])))
    for sliced in (False, True):
        scorer.economise(Economy(sliced_decoder=sliced))
        scorer.decode(torch.randn(3, 4, 8, 8))
    assert sizes == [3, 1, 1, 1]


def test_branches_apart_go_through_one_by_one_after_all_controlnets(embedded):
    scorer, calls = small(embedded), []
    for name in ("unet", "controlnets.depth", "controlnets.canny"):
        net = scorer.get_submodule(name)
        net.register_forward_pre_hook(lambda net, given, name=name: calls.append((name, len(given[0]))))
    control = torch.rand(2, 3, 16, 16)
    together = predicted(scorer, depth=control, canny=control)
    assert calls == [("controlnets.depth", 4), ("controlnets.canny", 4), ("unet", 4)]
    calls.clear()
    scorer.economise(Economy(branches_apart=True))
    assert_same(predicted(scorer, depth=control, canny=control), together, 1e-5)
    assert calls == [("controlnets.depth", 2)] * 2 + [("controlnets.canny", 2)] * 2 + [("unet", 2)] * 2


def on_the_device(scorer):
    return [name for name in PARTS if all(p.numel() for p in scorer.get_submodule(name).parameters())]


def test_one_network_at_a_time_is_on_the_device_and_the_text_encoder_once_in_a_run(embedded, far_away):
    scorer, used = small(embedded), []
    scorer.economise(Economy(offload=True))
    assert on_the_device(scorer) == []
    nets = {**{name: name for name in PARTS if name != "vae"}, "vae.encoder": "vae", "vae.decoder": "vae"}
    for inner, part in nets.items():
        check = lambda net, given, part=part: used.append((part, on_the_device(scorer)))  # noqa: E731
        scorer.get_submodule(inner).register_forward_pre_hook(check)
    step = ["vae", "text_encoder", "text_encoder", "controlnets.depth", "unet", "vae"]
    for expected in (step, [name for name in step if name != "text_encoder"]):
        results(scorer)
        assert used == [(name, [name]) for name in expected]
        used.clear()


@pytest.mark.parametrize("recompute", [False, True])
def test_the_encoder_comes_back_for_its_backward(embedded, far_away, recompute, monkeypatch):
    """Else its weights would not be there: the test sees that, too."""
    scorer = small(embedded)
    scorer.economise(Economy(offload=True, recompute_encoder=recompute))
    results(scorer)
    monkeypatch.setattr(Offload, "bring_before_backward", lambda *given: None)
    latents = scorer.encode(smooth_pictures(2, 16).requires_grad_())
    predicted(scorer)
    with pytest.raises(RuntimeError):
        latents.sum().backward()


def test_what_waits_is_the_same_copy_every_time(embedded, far_away):
    """Frozen weights need no way back."""
    scorer = small(embedded)
    before = {name: p.detach().clone() for name, p in scorer.named_parameters()}
    scorer.economise(Economy(offload=True))
    copies = {name: [waiting.data_ptr() for _, waiting in pairs] for name, pairs in scorer._offload.weights.items()}
    results(scorer), results(scorer)
    assert copies == {name: [w.data_ptr() for _, w in pairs] for name, pairs in scorer._offload.weights.items()}
    scorer.economise(Economy())
    assert all(torch.equal(p, before[name]) for name, p in scorer.named_parameters())


def test_on_a_cpu_there_is_nowhere_to_go(embedded):
    scorer = small(embedded)
    places = [p.data_ptr() for p in scorer.parameters()]
    scorer.economise(Economy(offload=True))
    results(scorer)
    assert places == [p.data_ptr() for p in scorer.parameters()]
    assert not Offload.helps(torch.device("meta")) and Offload.helps(torch.device("cuda"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_on_a_gpu_weights_that_wait_take_no_room_there(embedded, dtype):
    scorer = small(embedded, dtype=dtype).to("cuda")
    images = smooth_pictures(1, 16).cuda()
    expected, before = encoded(scorer, images), torch.cuda.memory_allocated()
    scorer.economise(Economy(offload=True))
    assert torch.cuda.memory_allocated() < before and not [p for p in scorer.parameters() if p.is_cuda]
    latents = scorer.encode(images.requires_grad_())
    predictions = scorer.predict_noise(latents.detach(), torch.tensor([100]).cuda(), {"p": scorer.condition(["a"])})
    assert predictions["p"].is_cuda and not scorer.vae.encoder.conv_in.weight.is_cuda
    latents.sum().backward()
    assert bool(images.grad.isfinite().all())
    torch.testing.assert_close(latents.detach(), expected[0], rtol=1e-3, atol=1e-3)


def test_a_scorer_that_saves_memory_keeps_the_contract(embedded, far_away):
    embedded.economise(Economy(True, True, True, True))
    check_scorer(embedded)
    assert embedded.economy == Economy(True, True, True, True)
    embedded.economise(Economy())
