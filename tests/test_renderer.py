"""What holds for every backbone: the frozen reference, seeds, and the pictures of a view."""

import pytest
import torch
from torch import nn

from distill3d.cameras import orbit
from distill3d.draws import Draws
from distill3d.renderer import Render, frozen_copy
from tests.toys import toy


def some_cameras(subjects=1):
    yaw = torch.tensor([[-0.4, 0.9]], dtype=torch.float64).expand(subjects, -1)
    return orbit(yaw, 0.3 * yaw)


def pictures(renderer, codes):
    return renderer.render(renderer.scene(codes), some_cameras(len(codes))).tensors()


@pytest.fixture
def renderer():
    built = toy(seed=3)
    built.register_buffer("mean_code", torch.randn(4))
    return built


@pytest.fixture
def codes(renderer):
    return renderer.codes_of_seeds([0, 5])


def test_the_reference_shares_what_is_not_trained_and_copies_what_is(renderer):
    trained = renderer.trainable()
    reference = frozen_copy(renderer, trained.values())
    own = dict(renderer.named_parameters())
    assert 0 < len(trained) < len(own)
    for name, parameter in reference.named_parameters():
        shared = parameter.data_ptr() == own[name].data_ptr()
        assert shared != (name in trained), name
        assert torch.equal(parameter, own[name])
    assert reference.mean_code.data_ptr() == renderer.mean_code.data_ptr()


def test_the_reference_renders_what_the_original_renders(renderer, codes):
    reference = frozen_copy(renderer, renderer.trainable().values())
    before, copied = pictures(renderer, codes), pictures(reference, codes)
    for name, picture in copied.items():  # a copy may lie otherwise in memory, which moves the last bit of a sum
        torch.testing.assert_close(picture, before[name], rtol=0, atol=1e-13)


def test_training_does_not_move_the_reference(renderer, codes):
    trained = renderer.trainable()
    reference = frozen_copy(renderer, trained.values())
    before = pictures(reference, codes)
    with torch.no_grad():
        for parameter in trained.values():
            parameter.add_(0.1)
    after = pictures(reference, codes)
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert not torch.equal(pictures(renderer, codes)["image"], before["image"])


def test_the_reference_is_frozen_and_what_is_trained_is_not(renderer):
    trained = renderer.trainable()
    reference = frozen_copy(renderer, trained.values())
    assert not any(p.requires_grad for p in reference.parameters())
    assert all(p.requires_grad for p in trained.values())
    assert not any(p.requires_grad for n, p in renderer.named_parameters() if n not in trained)


def test_a_copy_of_nothing_trained_owns_nothing_and_of_everything_shares_nothing(renderer):
    place = lambda r: {p.data_ptr() for p in r.parameters()}  # noqa: E731
    assert place(frozen_copy(renderer, [])) == place(renderer)
    assert not place(frozen_copy(renderer, list(renderer.parameters()))) & place(renderer)


def test_weights_that_a_backbone_ties_stay_tied_in_the_reference(renderer):
    renderer.again = nn.Linear(8, 8).double()
    renderer.again.weight = renderer.mapping.weight
    reference = frozen_copy(renderer, list(renderer.parameters()))
    assert reference.again.weight is reference.mapping.weight
    assert reference.mapping.weight is not renderer.mapping.weight


def test_a_seed_names_one_subject_in_any_company_and_order(renderer):
    together = renderer.codes_of_seeds([3, 8, 3, 0])
    assert together.shape == (4, *renderer.code_shape)
    for place, seed in enumerate([3, 8, 3, 0]):
        assert torch.equal(together[place], renderer.codes_of_seeds([seed])[0])
    assert torch.equal(renderer.codes_of_seeds([0, 8, 3]), together[[3, 1, 0]])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(together[0], together[3])


def test_seeds_do_not_read_or_move_the_global_random_state(renderer):
    torch.manual_seed(1)
    first = renderer.codes_of_seeds([4])
    following = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(3), following)
    assert torch.equal(renderer.codes_of_seeds([4]), first)


def test_the_subjects_of_seeds_are_not_those_of_a_training_step(renderer):
    """Else a preview would show subjects that a run was trained on first."""
    of_seed = renderer.codes_of_seeds([0])
    assert not torch.equal(of_seed, renderer.sample_codes(Draws(0, 0, (0,))))


def a_render(image=True):
    raw, depth, opacity = torch.rand(1, 2, 3, 4, 4), torch.rand(1, 2, 1, 4, 4), torch.rand(1, 2, 1, 4, 4)
    return Render(raw, depth, opacity, torch.rand(1, 2, 3, 8, 8) if image else None)


def test_a_stage_is_the_picture_of_that_name():
    render = a_render()
    assert render.stage("raw") is render.raw
    assert render.stage("image") is render.image


def test_an_image_that_was_not_rendered_is_an_error_that_says_what_to_do():
    render = a_render(image=False)
    assert render.stage("raw") is render.raw
    with pytest.raises(ValueError, match=r'upto="raw".*needs'):
        render.stage("image")


def test_the_tensors_of_a_render_are_the_pictures_that_are_there():
    render = a_render()
    assert list(render.tensors()) == ["raw", "depth", "opacity", "image"]
    assert all(value is getattr(render, name) for name, value in render.tensors().items())
    assert list(a_render(image=False).tensors()) == ["raw", "depth", "opacity"]


@pytest.mark.parametrize("image", [True, False])
def test_mapping_changes_each_picture_once_and_keeps_the_original(image):
    render = a_render(image)
    doubled = render.map(lambda t: 2 * t)
    assert doubled.tensors().keys() == render.tensors().keys()
    for name, value in render.tensors().items():
        assert torch.equal(doubled.tensors()[name], 2 * value)
    assert (doubled.image is None) != image


def test_the_raw_picture_does_not_depend_on_how_far_a_render_goes(renderer, codes):
    scene = renderer.scene(codes)
    raw, image = (renderer.render(scene, some_cameras(2), upto=upto) for upto in ("raw", "image"))
    assert raw.image is None and image.image is not None
    for name, value in raw.tensors().items():
        assert torch.equal(value, image.tensors()[name])
