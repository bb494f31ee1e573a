"""The embedded reconstruction model: TripoSR's network, small, for the heads of the embedded world.

A toy that knows one procedural family of heads; it stands in for a real model and is no evidence for one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from distill3d.cameras import CameraPrior
from distill3d.errors import WeightsError
from distill3d.files import written_aside
from distill3d.licences import EMBEDDED
from distill3d.renderer import RunDefaults
from distill3d.state_dicts import fill
from distill3d.tiny.generator import BACKGROUND, TinyTriplane
from distill3d.tiny.subjects import WorldSubjects
from distill3d_lrm.foreground import Removal
from distill3d_lrm.preparation import Preparation
from distill3d_lrm.renderer import Look, LrmRenderer
from distill3d_lrm.subjects import PhotoSubjects, Studio
from distill3d_lrm.triposr import TripoSR, TripoSRConfig
from distill3d_lrm.vit import ViTConfig
from distill3d_lrm.world_heads import WorldHeads

WEIGHTS = Path(__file__).parent / "weights" / "tiny_lrm.safetensors"
METADATA = "distill3d-tiny-lrm"  # the one key: several would be written in no fixed order
RAW_SIZE, IMAGE_SIZE = 64, 96  # of what scorers look at, and of pictures for people: each is traced

TINY = TripoSRConfig(
    image_size=64,
    vit=ViTConfig(
        hidden_size=128, num_hidden_layers=4, num_attention_heads=4, intermediate_size=384, image_size=64, patch_size=8
    ),
    plane_size=8,
    channels=160,
    heads=5,
    layers=3,
    upsample=8,
    plane_channels=12,
    neurons=32,
    hidden_layers=2,
    radius=0.36,
    samples=32,
)

# A picture is framed as the world's cameras frame it: how large a head is says who it is.
PREPARATION = Preparation(TINY.image_size, 0.5, "antialiased", None, quantised=True)

_views = partial(CameraPrior, pitch=20)
DEFAULTS = RunDefaults(
    scorer="tiny",
    steps=220,
    lr=5e-3,
    anchors={"scene": 0.3},  # without it one head in five is taken for another, with it one in seven
    stage="raw",
    path="flow",
    mirror=False,
    grid_every=6,
    rerender=False,
    threads=1,
    flush_denormal=True,
    replay=100,
    front=_views(yaw=60),
    around=_views(yaw=180),
)


class TinyLrm(LrmRenderer, WorldSubjects):
    """The embedded model with the world's own heads as subjects."""

    def world_codes(self, seeds: Sequence[int]) -> Tensor:
        """See `WorldSubjects.world_codes`."""
        return WorldHeads.codes_of_seeds(seeds)


def load_tiny_lrm(
    weights: str | None = None,
    device: str = "cpu",
    *,
    subjects: Sequence[str] = (),
    remove_background: Removal = "auto",
    low_memory: bool = False,
) -> LrmRenderer:
    """The embedded reconstruction model: a picture of a head in, a 3D head out.

    Args:
        weights: a file that `save_model` wrote; None or "embedded" for the one that comes with the package.
        subjects: photo files, and folders of them; none for heads of the embedded world, a new one for each draw.
        remove_background: see `foreground.with_alpha`.
        low_memory: see `renderer.Look`.
    Raises:
        WeightsError: if the file is missing, damaged, or no such model.
    """
    path = WEIGHTS if weights is None or weights == EMBEDDED else Path(weights)
    model = read_model(path)
    look = Look(background=(BACKGROUND + 1) / 2, low_memory=low_memory, rays_at_once=2048)
    studio = Studio(PREPARATION, remove_background)
    people = PhotoSubjects(subjects, studio) if subjects else WorldHeads(PREPARATION)
    renderer = (LrmRenderer if subjects else TinyLrm)(
        model,
        studio,
        people,
        look,
        raw_size=RAW_SIZE,
        image_size=IMAGE_SIZE,
        defaults=DEFAULTS,
        licence=TinyTriplane.weights_licence,
        weights_name=EMBEDDED if path == WEIGHTS else "",
    )
    return renderer.to(device).eval()


def save_model(model: TripoSR, path: Path) -> None:
    """Write the weights in half precision, with the sizes as metadata, aside and then renamed."""
    tensors = {name: value.detach().half().cpu().contiguous() for name, value in model.state_dict().items()}
    with written_aside(path) as aside:
        save_file(tensors, aside, {METADATA: json.dumps(asdict(model.config))})


def read_model(path: Path) -> TripoSR:
    """What `save_model` wrote.

    Raises:
        WeightsError: if the file is missing, damaged, or no such model.
    """
    advice = "Reinstall distill3d-lrm" if path == WEIGHTS else "Give the path of a file that save_model wrote"
    if not path.is_file():
        raise WeightsError(f"There is no weight file {path}. {advice}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if METADATA not in metadata:
            raise WeightsError(f"{path} holds no embedded reconstruction model. {advice}.")
        sizes = json.loads(metadata[METADATA])
        model = TripoSR(TripoSRConfig(**{**sizes, "vit": ViTConfig(**sizes["vit"])}))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError, RuntimeError) as error:
        first_line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WeightsError(f"The weight file {path} is damaged ({first_line}). {advice}.") from error
    fill(model, tensors, str(path))
    return model
