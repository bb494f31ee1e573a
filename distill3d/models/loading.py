"""From a run or a style pack to its stylised renderer: the base found and checked, the trained tensors put in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from distill3d.blending import Amount
from distill3d.errors import ConfigError, UnknownNameError, WeightsError
from distill3d.models.finding import Told, find_model, tell_log
from distill3d.models.palette import Palette, Stylised, belongs
from distill3d.renderer import Renderer
from distill3d.runs import RunFolder, check_device, fingerprint, open_backbone
from distill3d.stylisation import Stylisation


def load(
    model: str | Path,
    *,
    device: str | None = None,
    base: str | None = None,
    subjects: bool = True,
    token: str | bool | None = None,
    told: Told = tell_log,
) -> Stylised:
    """The stylised renderer of a run or of a style pack.

    Args:
        model: see `find_model`.
        device: takes the place of the run's own; a pack's is the CPU.
        base: the backbone's weights, as `--weights` takes them, where they lie elsewhere than the run found them. A
            pack's Hub id is not downloaded unless it is given here.
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
    palette = _palette_of([stylisation], device, base, subjects)
    return palette.mixed(dict.fromkeys(palette.styles, 1.0))


def load_palette(
    models: Sequence[str | Path],
    *,
    device: str | None = None,
    base: str | None = None,
    token: str | bool | None = None,
    told: Told = tell_log,
) -> Palette:
    """Several models on the first one's backbone; `Palette.styles` has them in this order.

    Raises:
        ConfigError: for styles of two backbones, or one that is named twice.
        RunError, PackError, HubError, WeightsError: see `load`.
    """
    found: dict[Path, Stylisation] = {}
    typed: dict[Path, str | Path] = {}
    for model in models:
        each = find_model(model, token=token, told=told)
        place = each.folder.resolve()
        if place in found:
            raise ConfigError(f"{typed[place]} and {model} are the same style; name it once.")
        found[place], typed[place] = each, model
    return _palette_of(list(found.values()), device, base, subjects=True)


def load_mixture(
    amounts: Mapping[str, Amount],
    *,
    device: str | None = None,
    base: str | None = None,
    token: str | bool | None = None,
    told: Told = tell_log,
) -> Stylised:
    """Several models at once, each with its amount, see `Stylised.blend`."""
    palette = load_palette(list(amounts), device=device, base=base, token=token, told=told)
    return palette.mixed(dict(zip(palette.styles, amounts.values())))


def _palette_of(found: Sequence[Stylisation], device: str | None, base: str | None, subjects: bool) -> Palette:
    original = _load_original(found[0], device or found[0].device, base, subjects)
    palette = Palette(original, fingerprint(original))
    for stylisation in found:
        palette = palette.with_style(stylisation)
    return palette


def _load_original(stylisation: Stylisation, device: str, base: str | None, subjects: bool) -> Renderer:
    """The backbone as it is before any style."""
    wanted = stylisation.backbone
    check_device(device)
    options = {k: v for k, v in wanted.options.items() if subjects or k != "subjects"}
    try:
        original = open_backbone(wanted.name, base or _weights_of(stylisation), device, options)
    except UnknownNameError as error:
        raise ConfigError(
            f"{stylisation.name} needs the backbone {wanted.name!r}, which is not installed. {error}"
        ) from error
    except ConfigError as error:
        raise ConfigError(f"{stylisation.name} cannot be loaded here: {error}") from error
    except WeightsError as error:
        raise WeightsError(f"{belongs(stylisation)} They could not be loaded: {error}") from error
    return original.requires_grad_(False)


def _weights_of(stylisation: Stylisation) -> str | None:
    """The backbone's weights by name; None for its own.

    A stranger does not choose what is downloaded and read here: of a pack that names a repository, the backbone's own
    weights are tried, whose checksum then tells.
    """
    weights = stylisation.backbone.weights
    return weights if isinstance(stylisation, RunFolder) or "/" not in (weights or "") else None
