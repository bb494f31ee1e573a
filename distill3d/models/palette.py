"""A backbone as it was and styles for it, mixed into stylised renderers."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn, cast

import torch
from torch import Tensor

from distill3d.blending import Amount, AmountOf, amount_by_name, check_amount, mix
from distill3d.errors import ConfigError, UnknownNameError, WeightsError
from distill3d.models.finding import Told, find_model, tell_log
from distill3d.renderer import Folding, Renderer
from distill3d.stylisation import Stylisation


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
        """One style more, under its own name, or its folder's path where another has that name.

        Raises:
            ConfigError, WeightsError, PackError: if it is one of another backbone, if it is here already, or if its
                tensors do not fit.
        """
        self._check(stylisation)
        name = stylisation.name if stylisation.name not in self.styles else str(stylisation.folder)
        try:
            before = pristine_of(self.original, stylisation.train)
        except UnknownNameError as error:
            raise ConfigError(f"{stylisation.name} trained what this backbone has not: {error}") from error
        tensors = stylisation.tensors(before)
        styles, trained = {**self.styles, name: stylisation}, {**self.trained, name: tensors}
        return Palette(self.original, self.sha256, styles, trained)

    def _check(self, stylisation: Stylisation) -> None:
        wanted, same = stylisation.backbone, self.in_folder_of(stylisation)
        if same is not None:
            raise ConfigError(f"{stylisation.name} and {same} are the same style; name it once.")
        for name, other in self.styles.items():
            if other.backbone.name != wanted.name:
                raise ConfigError(
                    f"{stylisation.name} is a style of backbone {wanted.name!r}, and {name} is one of "
                    f"{other.backbone.name!r}: only styles of one backbone can be mixed."
                )
        if wanted.sha256 not in (None, self.sha256):
            refuse_base(stylisation, self.original, self.sha256)

    def known_as(self, name: str) -> str | None:
        """The name of the style of that name, or of the only one in that style; None if there is none.

        Raises:
            ConfigError: if several are of that style.
        """
        if name in self.styles:
            return name
        found = [own for own, each in self.styles.items() if each.style == name]
        if len(found) > 1:
            raise ConfigError(f"{name} could be any of {', '.join(found)}. Say which.")
        return found[0] if found else None

    def in_folder_of(self, stylisation: Stylisation) -> str | None:
        """The name under which the same folder is here already."""
        place = stylisation.folder.resolve()
        return next((name for name, each in self.styles.items() if each.folder.resolve() == place), None)

    def mixed(self, amounts: Mapping[str, Amount]) -> Stylised:
        """The original with these amounts of its styles: sum_i a_i (theta_i - theta_0).

        Args:
            amounts: by the names in `styles`; of one that is not named there is nothing.
        Raises:
            ConfigError: for what is no amount, or parts that the backbone does not tell apart.
        """
        for name, amount in amounts.items():
            check_amount(name, amount)
        used = {name: amount for name, amount in amounts.items() if amount != 0.0}
        whole = [name for name, amount in used.items() if amount == 1.0]
        renderer = copy.deepcopy(self.original)
        if len(used) == len(whole) == 1:
            renderer.trainable(self.styles[whole[0]].train)  # a group may add parameters of its own
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


class Stylised(Renderer):
    """A renderer in a style, or in a mixture of styles.

    It is of its backbone's own class too, with all its capabilities; `load` makes one. It can be moved and cast as any
    module; what `blend` makes lies where `.original` does, in its precision.
    """

    palette: Palette
    amounts: Mapping[str, Amount]

    @property
    def original(self) -> Renderer:
        """The backbone as it was."""
        return self.palette.original

    def blend(
        self, amounts: Mapping[str, Amount], *, token: str | bool | None = None, told: Told = tell_log
    ) -> Stylised:
        """The same backbone with other amounts of its styles, or with further styles: sum_i a_i (theta_i - theta_0).

        Args:
            amounts: by style. The name is one that this model has already (its own, or its style's), or any that `load`
                takes; a style of its own that is not named keeps its amount. An amount is a number (0 for none, 1 for
                all of it, more for too much), or one for each part: {"geometry": 0.2, "texture": 1}, where a part that
                is not named is left out.
            token, told: see `find_model`.
        Raises:
            ConfigError: for what is no amount, a style of another backbone, or one that is named twice.
            RunError, PackError, HubError, WeightsError: see `load`.
        """
        if not isinstance(amounts, Mapping):
            raise ConfigError(f'blend takes amounts by style, as {{"zombie": 0.5}}, got {amounts!r:.60}.')
        palette, mixture, named = self.palette, dict(self.amounts), set()
        for name, amount in amounts.items():
            check_amount(name, amount)
            known = palette.known_as(name)
            if known is None:
                found = find_model(name, token=token, told=told)
                known = palette.in_folder_of(found)
                if known is None:
                    palette = palette.with_style(found)
                    known = list(palette.styles)[-1]
            if known in named:
                raise ConfigError(f"{name} names {known} a second time; name it once.")
            named.add(known)
            mixture[known] = amount
        return palette.mixed(mixture)


def _as_stylised(renderer: Renderer, palette: Palette, amounts: Mapping[str, Amount]) -> Stylised:
    """The renderer, its class joined with `Stylised`: a wrapper would hide the backbone's capabilities."""
    own = type(renderer)
    renderer.__class__ = type(own.__name__, (Stylised, own), {"__module__": own.__module__})
    stylised = cast(Stylised, renderer.requires_grad_(False))
    stylised.palette, stylised.amounts = palette, dict(amounts)
    return stylised


def pristine_of(original: Renderer, group: str) -> dict[str, Tensor]:
    """What a training group trains, as it is before; zeros for parameters that the group adds.

    Nothing is added to this renderer. What is drawn for added ones is no part of the backbone, so no difference to it
    may be taken.
    """
    own = dict(original.named_parameters())
    shared = {id(t): t for t in [*own.values(), *original.buffers()]}
    shell = copy.deepcopy(original, memo=shared)
    trained = shell.trainable(group)
    return {name: (own[name] if name in own else torch.zeros_like(p)).detach() for name, p in trained.items()}


@torch.no_grad()
def put(renderer: Renderer, tensors: Mapping[str, Tensor]) -> None:
    """Copy tensors into the parameters of the same names."""
    parameters = dict(renderer.named_parameters())
    for name, tensor in tensors.items():
        parameters[name].copy_(tensor)


def belongs(stylisation: Stylisation) -> str:
    """Which weights a style belongs to, in a sentence."""
    wanted = stylisation.backbone
    called = f", published as {wanted.weights_name}" if wanted.weights_name else ""
    checksum = f", sha256 {wanted.sha256}" if wanted.sha256 else ""
    return f"{stylisation.name} belongs to weights of backbone {wanted.name!r}{called}{checksum}."


def refuse_base(stylisation: Stylisation, original: Renderer, sha256: str) -> NoReturn:
    """Say which weights are needed, and which are here."""
    given = f" ({original.weights_name})" if original.weights_name else ""
    raise WeightsError(
        f"{belongs(stylisation)} Those that are installed or given are others{given}: sha256 {sha256}. "
        f"Give the right ones with --base{f' {name}' if (name := stylisation.backbone.weights_name) else ''}."
    )
