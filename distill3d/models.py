"""From what a user calls a model to a renderer in its style: a run here, a style pack, and mixtures of them."""

from __future__ import annotations

import copy
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from distill3d.blending import Amount, AmountOf, amount_by_name, check_amount, mix
from distill3d.errors import ConfigError, RunError, UnknownNameError, WeightsError
from distill3d.packs.config import ADAPTER, CONFIG, tells_of_pack
from distill3d.renderer import Folding, Renderer
from distill3d.runs import RunFolder, check_device, fingerprint, open_backbone
from distill3d.stylisation import Stylisation

logger = logging.getLogger(__name__)

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w./-]+)?")  # user/name, user/name@revision
RUNS = Path("runs")  # where bare names are looked for


def find_model(
    model: str | Path, *, token: str | bool | None = None, told: Callable[[str], None] = logger.info
) -> Stylisation:
    """The run or style pack that these words mean.

    Args:
        model: the folder of a run or of a style pack; a Hub id "user/name" or "user/name@revision", which is downloaded
            into the Hugging Face cache; or the bare name of a run below runs/, as "zombie" for runs/zombie-tiny.
        token: for the Hub; None for the one that it is logged in with.
        told: what is downloaded, before it is.
    Raises:
        RunError, PackError, HubError: if there is none, saying what was looked for.
    """
    text = str(model)
    if os.path.isdir(text):  # Path.is_dir raises for a name that is too long
        return _in_folder(Path(text))
    if isinstance(model, str) and re.fullmatch(r"[\w.-]+", text):
        return _in_folder(_below_runs(text))
    if not HUB_ID.fullmatch(text):
        raise RunError(f"There is no run folder {text}, and it is no Hub id, which looks like user/name.")
    from distill3d.packs.hub import fetch
    from distill3d.packs.pack import open_pack

    return open_pack(fetch(text, token=token, told=told), name=text)


def find_run(model: str | Path) -> RunFolder:
    """The same where only a run will do, since a style pack has no checkpoints.

    Raises:
        RunError: if it is none.
    """
    found = find_model(model)
    if not isinstance(found, RunFolder):
        raise RunError(f"{found.name} is a style pack, not a run: it has no checkpoints. Give the run's folder.")
    return found


def _in_folder(folder: Path) -> Stylisation:
    if not (os.path.lexists(folder / ADAPTER) or tells_of_pack(folder / CONFIG)):
        return RunFolder(folder)
    from distill3d.packs.pack import open_pack

    return open_pack(folder)


def _below_runs(name: str) -> Path:
    """runs/NAME, or the only runs/NAME-something."""
    if os.path.isdir(RUNS / name):
        return RUNS / name
    found = sorted(path for path in RUNS.glob(f"{name}-*") if path.is_dir())
    if not found:
        raise RunError(
            f"There is no run folder {name}, nor {RUNS / name}; and it is no Hub id, which looks like user/name."
        )
    if len(found) > 1:
        raise RunError(f"{name} could be any of {', '.join(map(str, found))}. Say which.")
    return found[0]


def load(
    model: str | Path,
    *,
    device: str | None = None,
    base: str | None = None,
    subjects: bool = True,
    token: str | bool | None = None,
    told: Callable[[str], None] = logger.info,
) -> Stylised:
    """The stylised renderer of a run or of a style pack.

    Args:
        model: see `find_model`.
        device: takes the place of the run's own; a pack's is the CPU.
        base: the backbone's weights, as `--weights` takes them, where they lie elsewhere than the run found them.
        subjects: False leaves out the files of subjects that a run was trained on, for who brings others.
        token, told: see `find_model`.
    Raises:
        RunError, PackError, HubError: if there is no such model.
        WeightsError: if it is damaged, or its base is missing or another.
        ConfigError: for a device that is not here, or a backbone that is not installed.
    """
    return load_stylised(find_model(model, token=token, told=told), device=device, base=base, subjects=subjects)


def load_stylised(
    stylisation: Stylisation, *, device: str | None = None, base: str | None = None, subjects: bool = True
) -> Stylised:
    """The same of a model that was found already."""
    original = _load_original(stylisation, device or stylisation.device, base, subjects)
    palette = Palette(original, fingerprint(original)).with_style(stylisation)
    return palette.mixed({stylisation.name: 1.0})


def load_mixture(
    amounts: Mapping[str, Amount],
    *,
    device: str | None = None,
    base: str | None = None,
    token: str | bool | None = None,
    told: Callable[[str], None] = logger.info,
) -> Stylised:
    """Several styles at once: the first one's backbone, and the amounts of `Stylised.blend`."""
    first, *others = amounts
    mixed = load(first, device=device, base=base, token=token, told=told)
    own = next(iter(mixed.amounts))
    return mixed.blend({own: amounts[first], **{name: amounts[name] for name in others}}, token=token, told=told)


def _load_original(stylisation: Stylisation, device: str, base: str | None, subjects: bool) -> Renderer:
    """The backbone as it is before any style."""
    wanted = stylisation.backbone
    check_device(device)
    options = {k: v for k, v in wanted.options.items() if subjects or k != "subjects"}
    try:
        original = open_backbone(wanted.name, base or wanted.weights, device, options)
    except UnknownNameError as error:
        raise ConfigError(
            f"{stylisation.name} needs the backbone {wanted.name!r}, which is not installed. {error}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{stylisation.name} cannot be loaded here: {error}") from error
    except WeightsError as error:
        raise WeightsError(f"{_belongs(stylisation)} They could not be loaded: {error}") from error
    return original.requires_grad_(False)


def _belongs(stylisation: Stylisation) -> str:
    wanted = stylisation.backbone
    called = f", published as {wanted.weights_name}" if wanted.weights_name else ""
    checksum = f", sha256 {wanted.sha256}" if wanted.sha256 else ""
    return f"{stylisation.name} belongs to weights of backbone {wanted.name!r}{called}{checksum}."


def _refuse_base(stylisation: Stylisation, original: Renderer) -> NoReturn:
    given = f" ({original.weights_name})" if original.weights_name else ""
    raise WeightsError(
        f"{_belongs(stylisation)} Those that are installed or given are others{given}: sha256 {fingerprint(original)}. "
        "Give the right ones with --base."
    )


@dataclass(frozen=True)
class Palette:
    """A backbone as it was, and styles for it."""

    original: Renderer
    sha256: str  # of the original
    styles: Mapping[str, Stylisation] = field(default_factory=dict)  # by the name that mixtures use
    trained: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)  # by the same

    def __deepcopy__(self, memo: Any) -> Palette:
        return self  # nothing in it changes

    def with_style(self, stylisation: Stylisation) -> Palette:
        """One style more.

        Raises:
            ConfigError, WeightsError: if it is one of another backbone, or its tensors do not fit.
        """
        wanted = stylisation.backbone
        mine = next((style.backbone.name for style in self.styles.values()), wanted.name)
        if wanted.name != mine:
            raise ConfigError(
                f"{stylisation.name} is a style of backbone {wanted.name!r}, and this one is {mine!r}: only styles of "
                "one backbone can be mixed."
            )
        if wanted.sha256 not in (None, self.sha256):
            _refuse_base(stylisation, self.original)
        try:
            mine_before = trained_of(self.original, stylisation.train)
        except UnknownNameError as error:
            raise ConfigError(f"{stylisation.name} trained what this {wanted.name!r} has not: {error}") from error
        tensors = stylisation.tensors(mine_before)
        return Palette(
            self.original,
            self.sha256,
            {**self.styles, stylisation.name: stylisation},
            {**self.trained, stylisation.name: tensors},
        )

    def known_as(self, name: str) -> str | None:
        """The style of that name, or the only one in that style or in that place; None if there is none."""
        if name in self.styles:
            return name
        found = [own for own, s in self.styles.items() if name in (s.style, str(s.folder))]
        return found[0] if len(found) == 1 else None

    def mixed(self, amounts: Mapping[str, Amount]) -> Stylised:
        """The original with these amounts of its styles."""
        used = {name: amount for name, amount in amounts.items() if amount != 0.0}
        whole = [name for name, amount in used.items() if amount == 1.0]
        renderer = copy.deepcopy(self.original)
        if len(used) == len(whole) == 1:
            renderer.trainable(self.styles[whole[0]].train)
            put(renderer, self.trained[whole[0]])
        elif used:
            self._put_mixture(renderer, used)
        return _as_stylised(renderer, self, amounts)

    def _put_mixture(self, renderer: Renderer, used: Mapping[str, Amount]) -> None:
        styles: list[tuple[Mapping[str, Tensor], AmountOf]] = []
        for name, amount in used.items():
            tensors = self.trained[name]
            if isinstance(renderer, Folding):
                tensors = renderer.folded(tensors)
            if not tensors.keys() <= dict(renderer.named_parameters()).keys():
                renderer.trainable(self.styles[name].train)  # which are added, and nothing at first
            styles.append((tensors, amount_by_name(amount, renderer)))
        put(renderer, mix(dict(renderer.named_parameters()), styles))


def trained_of(original: Renderer, group: str) -> dict[str, Tensor]:
    """What a training group trains, as it is before; parameters that the group adds are not added to this renderer."""
    shared = {id(t): t for t in [*original.parameters(), *original.buffers()]}
    shell = copy.deepcopy(original, memo=shared)
    return {name: parameter.detach() for name, parameter in shell.trainable(group).items()}


@torch.no_grad()
def put(renderer: Renderer, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names."""
    parameters = dict(renderer.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)


class Stylised(Renderer):
    """A renderer in a style, or in a mixture of styles.

    It is of its backbone's own class too, with all its capabilities; `load` makes one.
    """

    palette: Palette
    amounts: Mapping[str, Amount]

    @property
    def original(self) -> Renderer:
        """The backbone as it was."""
        return self.palette.original

    def blend(
        self,
        amounts: Mapping[str, Amount],
        *,
        token: str | bool | None = None,
        told: Callable[[str], None] = logger.info,
    ) -> Stylised:
        """The same backbone with other amounts of its styles, or with further styles: sum_i a_i (theta_i - theta_0).

        Args:
            amounts: by style. The name is one that this model has already (its own, or its style's), or any that `load`
                takes; a style of its own that is not named keeps its amount. An amount is a number (0 for none, 1 for
                all of it, more for too much), or one for each part: {"geometry": 0.2, "texture": 1}, where a part that
                is not named is left out.
            token, told: see `find_model`.
        Raises:
            ConfigError: for what is no amount, or a style of another backbone.
            RunError, PackError, HubError, WeightsError: see `load`.
        """
        palette, mixture = self.palette, dict(self.amounts)
        for name, amount in amounts.items():
            check_amount(name, amount)
            known = palette.known_as(name)
            if known is None:
                found = find_model(name, token=token, told=told)
                if found.name in palette.styles:  # another folder of that name
                    found.name = str(found.folder)
                palette, known = palette.with_style(found), found.name
            mixture[known] = amount
        return palette.mixed(mixture)


def _as_stylised(renderer: Renderer, palette: Palette, amounts: Mapping[str, Amount]) -> Stylised:
    """The renderer, its class joined with `Stylised`: a wrapper would hide the backbone's capabilities."""
    own = type(renderer)
    renderer.__class__ = type(own.__name__, (Stylised, own), {"__module__": own.__module__})
    stylised = cast(Stylised, renderer)
    stylised.palette, stylised.amounts = palette, dict(amounts)
    return stylised
