"""Any Stable-Diffusion-1/2-class model in diffusers' format. The only module of a run that imports diffusers."""

from __future__ import annotations

import importlib.util
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from distill3d.cameras import Cameras
from distill3d.errors import ConfigError, WeightsError
from distill3d.schedule import Schedule
from distill3d.scorer import NO_CONTROLS, Scorer
from distill3d.scorers.published import CONTROLNETS, MODEL, how_to_get

logger = logging.getLogger(__name__)

KNOWN_WORDS = "known_words.json"  # beside a tokenizer whose text encoder was taught few words


@dataclass(frozen=True)
class DiffusersCondition:
    """B text embeddings (B, L, D) and the control pictures (B, 3, H, W) by name."""

    embeddings: Tensor
    controls: Mapping[str, Tensor]


class DiffusersScorer(Scorer):
    """UNet, VAE, text encoder and any number of ControlNets of one model, frozen.

    Noise- and v-prediction. All branches go through the networks in one batched pass.

    Args:
        controlnets: by the name of the control picture that each was taught, such as "depth".
        dtype: of the networks; float32 goes in and comes out.
    """

    unet: Any  # diffusers' and transformers' classes, which type checkers see through `nn.Module` only
    vae: Any
    text_encoder: Any

    def __init__(
        self,
        *,
        unet: Any,
        vae: Any,
        text_encoder: Any,
        tokenizer: Any,
        scheduler: Any,
        controlnets: Mapping[str, nn.Module] | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.controlnets = nn.ModuleDict(dict(controlnets or {}))
        self.to(dtype).requires_grad_(False).eval()
        self.dtype = dtype
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ConfigError(f"A scorer predicts noise (epsilon) or v_prediction, this one {self.prediction_type!r}.")
        self.schedule = Schedule.from_alpha_bar(scheduler.alphas_cumprod)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.latent_size = int(unet.config.sample_size)
        self.latent_channels = int(vae.config.latent_channels)
        self.image_size = self.latent_size * factor
        self.controls = tuple(self.controlnets)
        self._embedded: dict[str, Tensor] = {}
        self._words: frozenset[str] | None = None

    @classmethod
    def load(
        cls,
        source: str,
        *,
        controlnets: Mapping[str, str] | None = None,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> DiffusersScorer:
        """Read a folder or Hub id by its sub-folders; only safetensors, never a pickle.

        Args:
            source: of a Stable-Diffusion-1/2-class model in diffusers' format.
            controlnets: name of a control picture to folder or Hub id.
        Raises:
            WeightsError: for a part that is missing, damaged, or not to be had without a network.
        """
        with _no_loading_bars():
            scorer = cls(
                unet=_load_part(UNet2DConditionModel, source, "unet"),
                vae=_load_part(AutoencoderKL, source, "vae"),
                text_encoder=_load_part(CLIPTextModel, source, "text_encoder"),
                tokenizer=_load_part(CLIPTokenizer, source, "tokenizer"),
                scheduler=_load_part(DDIMScheduler, source, "scheduler"),
                controlnets={name: _load_part(ControlNetModel, place) for name, place in (controlnets or {}).items()},
                dtype=dtype,
            )
        scorer._words = _known_words(Path(source) / "tokenizer" / KNOWN_WORDS)
        return scorer.to(device)

    @property
    def device(self) -> torch.device:
        return next(self.unet.parameters()).device

    def condition(
        self,
        prompts: Sequence[str],
        *,
        controls: Mapping[str, Tensor] = NO_CONTROLS,
        image: Tensor | None = None,
        cameras: Cameras | None = None,
    ) -> DiffusersCondition:
        if image is not None or cameras is not None:
            raise ConfigError("This diffusion model is conditioned on prompts and control pictures only.")
        unknown = sorted(set(controls) - set(self.controls))
        if unknown:
            raise ConfigError(
                f"No ControlNet for {', '.join(unknown)} was loaded; there are: {', '.join(self.controls) or 'none'}."
            )
        embeddings = torch.cat([self._embed(prompt) for prompt in prompts])
        return DiffusersCondition(embeddings, {k: v.to(self.device, self.dtype) for k, v in controls.items()})

    @torch.no_grad()
    def _embed(self, prompt: str) -> Tensor:
        """(1, L, D), computed once for each text."""
        if prompt not in self._embedded:
            self._warn_if_cut(prompt)
            length = self.tokenizer.model_max_length
            tokens = self.tokenizer([prompt], padding="max_length", truncation=True, max_length=length)
            ids = torch.tensor(tokens.input_ids, device=self.device)
            self._embedded[prompt] = self.text_encoder(ids)[0].to(self.dtype)
        return self._embedded[prompt]

    def _warn_if_cut(self, prompt: str) -> None:
        ids, length = self.tokenizer(prompt, verbose=False).input_ids, self.tokenizer.model_max_length
        if len(ids) > length:
            cut = self.tokenizer.decode(ids[length - 1 : -1]).strip()
            logger.warning("The prompt is longer than the text encoder reads (%d tokens). Cut off: %r", length, cut)

    def unknown_words(self, prompt: str) -> list[str]:
        if self._words is None:
            return []
        words = "".join(c if c.isalnum() or c == "'" else " " for c in prompt.lower()).split()
        return [word for word in words if word not in self._words]

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        posterior = self.vae.encode(images.to(self.device, self.dtype)).latent_dist
        latents = posterior.mean if noise is None else posterior.mean + posterior.std * noise.to(posterior.mean)
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        return ((latents - shift) * self.vae.config.scaling_factor).to(images)

    def decode(self, latents: Tensor) -> Tensor:
        shift = getattr(self.vae.config, "shift_factor", None) or 0.0
        scaled = latents.to(self.device, self.dtype) / self.vae.config.scaling_factor + shift
        return self.vae.decode(scaled).sample.to(latents)

    @torch.no_grad()
    def predict_noise(
        self, noisy: Tensor, timestep: Tensor, conditions: Mapping[str, DiffusersCondition]
    ) -> dict[str, Tensor]:
        predictions: dict[str, Tensor] = {}
        for group in _by_controls(conditions):
            stacked = self._forward(noisy, timestep, [conditions[name] for name in group])
            predictions.update(zip(group, stacked.to(noisy).chunk(len(group))))
        if self.prediction_type == "v_prediction":
            signal, sigma = (f(timestep).to(noisy) for f in (self.schedule.signal, self.schedule.noise))
            predictions = {name: signal * v + sigma * noisy for name, v in predictions.items()}
        return {name: predictions[name] for name in conditions}

    def _forward(self, noisy: Tensor, timestep: Tensor, conditions: Sequence[DiffusersCondition]) -> Tensor:
        """All branches that share their ControlNets in one batch: (len(conditions) * B, C, h, w)."""
        n = len(conditions)
        x = noisy.to(self.device, self.dtype).repeat(n, 1, 1, 1)
        t = timestep.to(self.device).repeat(n)
        text = torch.cat([condition.embeddings for condition in conditions])
        residuals: dict[str, Any] = {}
        for name in conditions[0].controls:
            picture = torch.cat([condition.controls[name] for condition in conditions])
            down, mid = self.controlnets[name](x, t, text, picture, return_dict=False)
            residuals = _add_residuals(residuals, down, mid)
        return self.unet(x, t, text, **residuals).sample


def _by_controls(conditions: Mapping[str, DiffusersCondition]) -> list[list[str]]:
    """Branches that use the same ControlNets; usually one group."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for name, condition in conditions.items():
        groups.setdefault(tuple(condition.controls), []).append(name)
    return list(groups.values())


def _add_residuals(residuals: dict[str, Any], down: Sequence[Tensor], mid: Tensor) -> dict[str, Any]:
    if residuals:
        down = [a + b for a, b in zip(residuals["down_block_additional_residuals"], down)]
        mid = residuals["mid_block_additional_residual"] + mid
    return {"down_block_additional_residuals": list(down), "mid_block_additional_residual": mid}


def _known_words(path: Path) -> frozenset[str] | None:
    return frozenset(json.loads(path.read_text())) if path.is_file() else None


@contextmanager
def _no_loading_bars() -> Iterator[None]:
    """transformers draws a bar for reading a file that is already here; a download's bar is huggingface_hub's."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def _load_part(kind: Any, source: str, subfolder: str | None = None) -> Any:
    """`from_pretrained` of one part, with an error that says what to do."""
    options: dict[str, Any] = {"subfolder": subfolder} if subfolder else {}
    if issubclass(kind, nn.Module):
        options.update(use_safetensors=True)
        if importlib.util.find_spec("accelerate") is None and kind.__module__.startswith("diffusers"):
            options["low_cpu_mem_usage"] = False  # what it falls back on, after a warning for each part
    folder = Path(source)
    part = f"the {subfolder} of {source}" if subfolder else source
    if folder.is_absolute() or folder.exists() or source.startswith("."):
        place = folder / (subfolder or "")
        if not place.is_dir():
            raise WeightsError(f"Cannot load {part}: there is no folder {place}.")
    try:
        return kind.from_pretrained(source, **options)
    except (OSError, SafetensorError, ValueError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if folder.exists():
            raise WeightsError(f"Cannot load {part}: the files are damaged or incomplete ({reason}).") from error
        raise WeightsError(
            f"Cannot load {part} from the local cache or the Hub ({reason}). With a network, fetch it once by: "
            f"hf download {source}. Or give a folder that holds it."
        ) from error


def load_diffusers(
    weights: str | None = None, device: str = "cpu", controlnets: Mapping[str, str] | None = None
) -> DiffusersScorer:
    """`--scorer diffusers`: any folder or Hub id; without one, the model and ControlNets of the released script."""
    if weights is not None:
        return DiffusersScorer.load(weights, controlnets=controlnets, device=device)
    places = controlnets or {name: net.repo for name, net in CONTROLNETS.items()}
    try:
        return DiffusersScorer.load(MODEL.repo, controlnets=places, device=device)
    except WeightsError as error:
        published = [MODEL, *([] if controlnets else CONTROLNETS.values())]
        missing = how_to_get(published)
        if not missing:
            raise
        raise WeightsError(
            f"The default diffusion models are not all here, and could not be fetched. With a network:\n{missing}\n"
            "Or give folders: --scorer-weights FOLDER --controlnet depth=FOLDER. The embedded one: --scorer tiny."
        ) from error


def load_tiny(weights: str | None = None, device: str = "cpu") -> DiffusersScorer:
    """`--scorer tiny`: the embedded model, with its ControlNets for depth and edges."""
    folder = Path(weights) if weights else Path(__file__).parents[1] / "tiny" / "weights" / "diffusion"
    places = {"depth": folder / "controlnet", "canny": folder / "controlnet-canny"}
    controlnets = {name: str(place) for name, place in places.items() if name == "depth" or place.is_dir()}
    scorer = DiffusersScorer.load(str(folder), controlnets=controlnets, device=device)
    scorer.grid_words = "four views"
    scorer.weights_licence = "Apache-2.0"
    return scorer
