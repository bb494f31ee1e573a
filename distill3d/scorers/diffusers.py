"""Any Stable-Diffusion-1/2-class model in diffusers' format. The only module of a run that imports diffusers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from distill3d.cameras import Cameras
from distill3d.errors import ConfigError, WeightsError
from distill3d.licences import EMBEDDED, Part, check_commercial
from distill3d.precision import dtypes_of
from distill3d.schedule import Schedule
from distill3d.scorer import NO_CONTROLS, Economical, Economy, Scorer
from distill3d.scorers import autoencoder
from distill3d.scorers.branches import DiffusersCondition, Stack, add_residuals, controls_of, stacked
from distill3d.scorers.economy import Offload
from distill3d.scorers.loading import known_words, load_part, no_loading_bars, unknown_settings_allowed
from distill3d.scorers.published import CONTROLNETS, MODEL, TINY_AUTOENCODER, how_to_get, part_at

logger = logging.getLogger(__name__)


class DiffusersScorer(Scorer, Economical):
    """UNet, VAE, text encoder and any number of ControlNets of one model, frozen.

    Noise- and v-prediction. All branches go through the networks in one batched pass.

    Args:
        vae: AutoencoderKL, or an AutoencoderTiny, whose posterior is a point: `encode` then ignores its noise.
        controlnets: by the name of the control picture that each was taught, such as "depth".
        dtype: of the networks: float32, bfloat16 or float16; float32 goes in and comes out. Half precision lays the
            networks out channels-last.
        vae_dtype: of the autoencoder, None for `dtype`; float32 in its place where it would spoil the gradient, see
            `autoencoder.dtype_of_vae`.
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
        vae_dtype: torch.dtype | None = None,
    ):
        super().__init__()
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.controlnets = nn.ModuleDict(dict(controlnets or {}))
        self.dtype = dtype
        self._arrange(autoencoder.dtype_of_vae(vae.config, vae_dtype or dtype)).requires_grad_(False).eval()
        self.prediction_type = scheduler.config.prediction_type
        if self.prediction_type not in ("epsilon", "v_prediction"):
            raise ConfigError(f"A scorer predicts noise (epsilon) or v_prediction, this one {self.prediction_type!r}.")
        if vae.config.latent_channels != unet.config.in_channels:
            made, read = vae.config.latent_channels, unet.config.in_channels
            raise ConfigError(f"The autoencoder does not fit: it makes {made} channels, the UNet reads {read}.")
        self.schedule = Schedule.from_alpha_bar(scheduler.alphas_cumprod)
        factor = autoencoder.pixels_of_a_latent(vae.config)
        self.latent_size = int(unet.config.sample_size)
        self.latent_channels = int(vae.config.latent_channels)
        self.image_size = self.latent_size * factor
        self.controls = tuple(self.controlnets)
        self._embedded: dict[str, Tensor] = {}
        self._words: frozenset[str] | None = None
        self._offload: Offload | None = None

    def _arrange(self, vae_dtype: torch.dtype) -> DiffusersScorer:
        """Every network in its dtype and layout; float32 networks keep the layout they were loaded in."""
        for name, part in self.named_children():
            # diffusers' own `to` warns of layers that need float32, also where none does
            nn.Module.to(part, vae_dtype if name == "vae" else self.dtype)
            if self.dtype in (torch.float16, torch.bfloat16):
                nn.Module.to(part, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return self

    @classmethod
    def load(
        cls,
        source: str,
        *,
        controlnets: Mapping[str, str] | None = None,
        device: str = "cpu",
        precision: str = "float32",
        fast: bool | str = False,
    ) -> DiffusersScorer:
        """Read a folder or Hub id by its sub-folders; only safetensors, never a pickle.

        Args:
            source: of a Stable-Diffusion-1/2-class model in diffusers' format.
            controlnets: name of a control picture to folder or Hub id.
            precision: one of `distill3d.precision.PRECISIONS`.
            fast: a tiny autoencoder in place of the VAE, which is not read: its folder or Hub id, or True for TAESD.
        Raises:
            ConfigError: for another precision, or a tiny autoencoder that does not fit.
            WeightsError: for a part that is missing, damaged, or not to be had without a network.
        """
        dtype, vae_dtype = dtypes_of(precision)
        places = dict(controlnets or {})
        with no_loading_bars():
            scorer = cls(
                unet=load_part(UNet2DConditionModel, source, "unet", dtype),
                vae=_load_tiny_autoencoder(source, fast) if fast else load_part(AutoencoderKL, source, "vae"),
                text_encoder=load_part(CLIPTextModel, source, "text_encoder", dtype),
                tokenizer=load_part(CLIPTokenizer, source, "tokenizer"),
                scheduler=load_part(DDIMScheduler, source, "scheduler"),
                controlnets={name: load_part(ControlNetModel, places[name], None, dtype) for name in places},
                dtype=dtype,
                vae_dtype=vae_dtype,
            )
        scorer._words = known_words(source)
        parts = _parts_at(source, places, fast)
        scorer.other_weights = parts[1:]
        scorer.weights_name, scorer.weights_licence = parts[0].name, parts[0].licence
        return scorer.to(device)

    @property
    def device(self) -> torch.device:
        return self._offload.device if self._offload else next(self.unet.parameters()).device

    def economise(self, economy: Economy) -> None:
        """See `Economical`. `offload` has no effect on a CPU, whose memory is the main one."""
        if self._offload:
            self._offload.end()
            self._offload = None
        self.economy = economy
        if economy.offload and Offload.helps(self.device):
            controls = {f"controlnets.{name}": net for name, net in self.controlnets.items()}
            parts = {"text_encoder": self.text_encoder, "vae": self.vae, "unet": self.unet, **controls}
            self._offload = Offload(parts, self.device)

    def _part(self, name: str) -> Any:
        """A network, on the device."""
        if self._offload:
            self._offload.bring(name)
        return self.get_submodule(name)

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
            self._embedded[prompt] = self._part("text_encoder")(ids)[0].to(self.dtype)
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
        recompute = self.economy.recompute_encoder
        latents = autoencoder.encode(self._part("vae"), images.to(self.device), noise, recompute)
        if self._offload:
            self._offload.bring_before_backward(latents, "vae")
        return latents.to(images)

    def decode(self, latents: Tensor) -> Tensor:
        pictures = autoencoder.decode(self._part("vae"), latents.to(self.device), self.economy.sliced_decoder)
        if self._offload:
            self._offload.bring_before_backward(pictures, "vae")
        return pictures.to(latents)

    @torch.no_grad()
    def predict_noise(
        self, noisy: Tensor, timestep: Tensor, conditions: Mapping[str, DiffusersCondition]
    ) -> dict[str, Tensor]:
        predictions: dict[str, Tensor] = {}
        given, t = noisy.to(self.device, self.dtype), timestep.to(self.device)
        stacks = stacked(given, t, conditions, self.economy.branches_apart)
        for stack, residuals in zip(stacks, self._residuals(stacks)):
            output = self._part("unet")(stack.noisy, stack.timestep, stack.text, **residuals).sample
            predictions.update(zip(stack.names, output.to(noisy).chunk(len(stack.names))))
        if self.prediction_type == "v_prediction":
            signal, sigma = (f(timestep).to(noisy) for f in (self.schedule.signal, self.schedule.noise))
            predictions = {name: signal * v + sigma * noisy for name, v in predictions.items()}
        return {name: predictions[name] for name in conditions}

    def _residuals(self, stacks: Sequence[Stack]) -> list[dict[str, Any]]:
        """What the ControlNets add in the UNet, for each stack. All before the UNet, each network brought once."""
        residuals: list[dict[str, Any]] = [{} for _ in stacks]
        for name in controls_of(stacks):
            net = self._part(f"controlnets.{name}")
            for i, stack in enumerate(stacks):
                if name in stack.controls:
                    given = (stack.noisy, stack.timestep, stack.text, stack.controls[name])
                    residuals[i] = add_residuals(residuals[i], *net(*given, return_dict=False))
        return residuals


def _load_tiny_autoencoder(source: str, fast: bool | str) -> Any:
    """The autoencoder that `fast` names, for the model at `source`."""
    if not isinstance(fast, str):
        autoencoder.check_taesd_fits(source, AutoencoderKL)
    with unknown_settings_allowed():
        return load_part(AutoencoderTiny, _tiny_autoencoder(fast))


def _tiny_autoencoder(fast: bool | str) -> str:
    """Where the one lies that `fast` names."""
    return fast if isinstance(fast, str) else TINY_AUTOENCODER.repo


def _parts_at(source: str, controlnets: Mapping[str, str], fast: bool | str) -> tuple[Part, ...]:
    """Whose weights are read from there, see `Scorer.parts`."""
    branches = tuple(part_at(f"controlnet {name}", place) for name, place in controlnets.items())
    tiny = (part_at("autoencoder", _tiny_autoencoder(fast)),) if fast else ()
    return part_at("scorer", source), *branches, *tiny


def load_diffusers(
    weights: str | None = None,
    device: str = "cpu",
    *,
    controlnets: Mapping[str, str] | None = None,
    precision: str = "float32",
    fast: bool | str = False,
    commercial_ok: bool = False,
) -> DiffusersScorer:
    """`--scorer diffusers`: any folder or Hub id; without one, the model and ControlNets of the released script.

    Args:
        controlnets: name of a control picture to folder or Hub id.
        precision: of the networks, one of `distill3d.precision.PRECISIONS`.
        fast: True encodes and decodes by TAESD, a tiny autoencoder; a text names the folder or Hub id of another.
        commercial_ok: refuse, before anything is fetched, what is not open to commercial use.
    Raises:
        ConfigError: for that, and see `DiffusersScorer.load`.
        WeightsError: if something is missing, saying how to get it.
    """
    options: dict[str, Any] = {"device": device, "precision": precision, "fast": fast}
    released = {name: net.repo for name, net in CONTROLNETS.items()} if weights is None else {}
    places = controlnets or released
    if commercial_ok:
        check_commercial(_parts_at(weights or MODEL.repo, places, fast))
    if weights is not None:
        return DiffusersScorer.load(weights, controlnets=places, **options)
    try:
        return DiffusersScorer.load(MODEL.repo, controlnets=places, **options)
    except WeightsError as error:
        tiny = [TINY_AUTOENCODER] if fast is True else []
        missing = how_to_get([MODEL, *([] if controlnets else CONTROLNETS.values()), *tiny])
        if not missing:
            raise
        raise WeightsError(
            f"The default diffusion models are not all here, and could not be fetched. With a network:\n{missing}\n"
            "Or give folders: --scorer-weights FOLDER --controlnet depth=FOLDER. The embedded one: --scorer tiny."
        ) from error


def load_tiny(
    weights: str | None = None, device: str = "cpu", *, precision: str = "float32", fast: bool | str = False
) -> DiffusersScorer:
    """`--scorer tiny`: the embedded model, with its ControlNets for depth and edges.

    Raises:
        ConfigError: for `fast`: its latents are its own VAE's, which no tiny autoencoder was taught.
    """
    if fast:
        raise ConfigError(
            "The embedded scorer has no tiny autoencoder, and needs none: its own is of that size. Leave --fast out, "
            "or use --scorer diffusers."
        )
    folder = Path(weights) if weights else Path(__file__).parents[1] / "tiny" / "weights" / "diffusion"
    places = {"depth": folder / "controlnet", "canny": folder / "controlnet-canny"}
    controlnets = {name: str(place) for name, place in places.items() if name == "depth" or place.is_dir()}
    scorer = DiffusersScorer.load(str(folder), controlnets=controlnets, device=device, precision=precision)
    scorer.grid_words = "four views"
    if not weights:
        scorer.weights_name, scorer.weights_licence = EMBEDDED, "Apache-2.0"
        scorer.other_weights = tuple(
            replace(part, name=EMBEDDED, licence="Apache-2.0") for part in scorer.other_weights
        )
    return scorer
