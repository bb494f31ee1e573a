import pytest
import torch

from distill3d.errors import ConfigError
from distill3d.tiny.generator import TinyArchitecture
from distill3d.tiny.train.generator import Phase, State, Training, read_phases
from distill3d.tiny.train.generator_losses import Photos, planes_of

SMALL = TinyArchitecture(channels=(8, 8, 8, 8, 8), plane_channels=4, decoder_hidden=8, residual_hidden=8, samples=4)


@pytest.fixture(scope="module")
def data() -> dict[str, Photos]:
    g = torch.Generator().manual_seed(0)

    def photos(size: int, views: int) -> Photos:
        shape = (3, views, 1, size, size)
        return Photos(
            z=torch.randn(3, 32, generator=g),
            rgb=torch.randint(256, (3, views, 3, size, size), generator=g, dtype=torch.uint8),
            yaw=torch.randn(3, views, generator=g),
            pitch=torch.zeros(3, views),
            depth=(2.5 + 0.2 * torch.rand(shape, generator=g)).half(),
            mask=255 * torch.randint(2, shape, generator=g, dtype=torch.uint8),
        )

    small = photos(64, 3)
    return {"field": small, "render": small, "superres": photos(128, 1)}


@pytest.mark.parametrize("half", [False, True])
def test_a_run_that_was_stopped_ends_with_the_same_bits(data, tmp_path, half):
    """Stopped within a phase and between two; also through the optimiser, whose moments are in the file."""
    phases = (Phase("field", 2), Phase("render", 2), Phase("superres", 2))
    whole = Training(State(seed=1, phases=phases, half=half), SMALL)
    stopped = Training(State(seed=1, phases=phases, half=half), SMALL)
    for step in range(6):
        whole.step(data)
        stopped.step(data)
        if step in (0, 1, 4):
            stopped.save(tmp_path / "checkpoint.safetensors")
            stopped = Training.load(tmp_path / "checkpoint.safetensors", architecture=SMALL)
    for ours, theirs in ((stopped.renderer, whole.renderer), (stopped.mean, whole.mean)):
        for name, tensor in ours.state_dict().items():
            assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_superresolution_leaves_the_raw_picture_alone(data):
    training = Training(State(seed=2, phases=(Phase("superres", 2),)), SMALL)
    before = {name: tensor.clone() for name, tensor in training.renderer.state_dict().items()}
    training.step(data)
    training.step(data)
    after = training.renderer.state_dict()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert {name.split(".")[0] for name in moved} == {"superresolution", "decoder"}
    assert torch.equal(before["decoder.second.weight"][:4], after["decoder.second.weight"][:4])
    assert not torch.equal(before["decoder.second.weight"][4:], after["decoder.second.weight"][4:])


def test_extending_a_finished_run_starts_from_its_mean(data, tmp_path):
    training = Training(State(seed=3, phases=(Phase("render", 1),)), SMALL)
    training.step(data)
    training.save(tmp_path / "checkpoint.safetensors")
    longer = Training.load(tmp_path / "checkpoint.safetensors", (Phase("render", 3),), SMALL)
    assert (longer.state.total, longer.state.place()) == (4, (Phase("render", 3), 0))
    longer.step(data)
    assert longer.state.step == 2


def test_extending_replaces_the_phases_that_have_not_begun(data, tmp_path):
    training = Training(State(seed=3, phases=(Phase("render", 1), Phase("render", 2), Phase("superres", 9))), SMALL)
    training.step(data)
    training.save(tmp_path / "checkpoint.safetensors")
    extension = (Phase("render", 5), Phase("superres", 1))
    assert Training.load(tmp_path / "checkpoint.safetensors", extension, SMALL).state.phases == (
        Phase("render", 1),
        *extension,
    )
    training.step(data)
    training.save(tmp_path / "checkpoint.safetensors")
    longer = Training.load(tmp_path / "checkpoint.safetensors", extension, SMALL)
    assert longer.state.phases == (Phase("render", 1), Phase("render", 2), *extension)


def test_planes_in_half_precision_are_near_those_in_full(data):
    renderer = Training(State(seed=4, phases=(Phase("field", 1),)), SMALL).renderer
    full, half = (planes_of(renderer, data["field"].z, half) for half in (False, True))
    assert half.dtype == torch.float32
    assert (full - half).norm() < 0.02 * full.norm()


def test_a_phase_that_cannot_be_read_is_named():
    assert read_phases("field=9,render=40@0.5") == (Phase("field", 9), Phase("render", 40, 0.5))
    for text in ("field", "polish=3", "render=0", "render=-2"):
        with pytest.raises(ConfigError, match="A phase is written"):
            read_phases(text)
