"""How a pack stores what a run trained.

- "full": the trained tensors themselves, by their names. Exact.
- "half": the difference to the base in float16, NAME@difference, times the power of two NAME@scale.
- "low-rank": the difference as a product NAME@left (m, r) times NAME@right (r, n), float16, times NAME@scale; or as
  "half" where that is smaller.

A part's name is what follows the last @, so names of tensors may hold any character.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from distill3d.errors import ConfigError, PackError
from distill3d.packs.config import Format
from distill3d.packs.low_rank import choose, factors, splits

LOW_RANK_ERROR = 0.2  # of the change, relative L2
UNEVEN = 2.0  # how many times that error a single tensor may have
ROUNDING = 2.0**-10  # more than the share of a change that float16 factors lose beside their rank
DIFFERENCE, LEFT, RIGHT, SCALE = "difference", "left", "right", "scale"
WHOLE, FACTORS = frozenset({DIFFERENCE, SCALE}), frozenset({LEFT, RIGHT, SCALE})
# Scales put the largest number of a tensor just below these: float16 then keeps 11 bits down to 2^-29 of it.
LARGEST, LARGEST_PRODUCT = 2.0**15, 2.0**26


def encode(
    original: Mapping[str, Tensor], trained: Mapping[str, Tensor], format: Format, *, error: float = LOW_RANK_ERROR
) -> dict[str, Tensor]:
    """The tensors of adapter.safetensors.

    Args:
        original: the base's tensors before training, by name.
        trained: what the run made of them: the same names, shapes and dtypes.
        format: see above. "half" is off by at most 2^-11 of each number's change, 2^-39 of its tensor's largest
            change and the rounding of the sum to the dtype of `trained`.
        error: of "low-rank": the relative L2 error of the change, of all tensors together, in (0, 1); that of a single
            one is at most twice as much.
    Raises:
        PackError: if a tensor holds numbers that are not finite, or too large for the format.
        ConfigError: for an error outside its range.
    """
    _check_trained(original, trained)
    if format == "full":
        return {name: _copy(tensor) for name, tensor in trained.items()}
    changes = {name: _exact(trained[name]) - _exact(original[name]) for name in sorted(trained)}
    parts = _halves(changes) if format == "half" else _low_rank(changes, error)
    stored = {f"{name}@{part}": tensor for name, each in parts.items() for part, tensor in each.items()}
    for key, tensor in stored.items():
        _check_fits(key.rpartition("@")[0], bool(tensor.isfinite().all()))
    return stored


def decode(
    original: Mapping[str, Tensor], stored: Mapping[str, Tensor], format: Format, source: str
) -> dict[str, Tensor]:
    """The trained tensors, on the CPU, with the dtypes of `original`; what was stored as "full" comes back exactly.

    Args:
        original: the base's tensors, by name.
        source: where `stored` came from, for errors.
    Raises:
        PackError: if it holds anything but what this format has for exactly these tensors, or makes numbers that are
            not finite.
    """
    if format == "full":
        _check_names(original, stored, source)
        for name, tensor in stored.items():
            _check(tensor, name, original[name].shape, original[name].dtype, source)
        trained = {name: stored[name] for name in original}
    else:
        trained = _changed(original, _grouped(original, stored, source), format, source)
    for name, tensor in trained.items():
        if not tensor.isfinite().all():
            raise PackError(f"{name} in {source} makes numbers that are not finite; do not use this pack.")
    return trained


def relative_error(
    original: Mapping[str, Tensor], trained: Mapping[str, Tensor], decoded: Mapping[str, Tensor]
) -> float:
    """L2 norm of what is wrong in `decoded` over that of the change; 0 is exact."""
    wrong = math.fsum(float((_exact(decoded[name]) - _exact(trained[name])).square().sum()) for name in trained)
    change = math.fsum(float((_exact(trained[name]) - _exact(original[name])).square().sum()) for name in trained)
    return 0.0 if wrong == 0 else math.sqrt(wrong / change) if change else math.inf


def _check_fits(name: str, fits: bool) -> None:
    if not fits:
        raise PackError(f"The change of {name} is too large for float16 and a scale. Choose format 'full'.")


def _copy(tensor: Tensor) -> Tensor:
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _exact(tensor: Tensor) -> Tensor:
    """In float64, where a difference of two float32 loses nothing that matters."""
    return tensor.detach().cpu().double()


def _check_trained(original: Mapping[str, Tensor], trained: Mapping[str, Tensor]) -> None:
    if original.keys() != trained.keys():
        raise PackError(f"The run did not train what its group says: {_first(original.keys() ^ trained.keys())}.")
    for name, tensor in trained.items():
        if tensor.shape != original[name].shape or tensor.dtype != original[name].dtype:
            raise PackError(f"The run's {name} is not of the shape and dtype of the base's.")
        if not (tensor.isfinite().all() and original[name].isfinite().all()):
            raise PackError(f"{name} holds numbers that are not finite; train the run again before you pack it.")


def _halves(changes: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    return {name: _half(change) for name, change in changes.items()}


def _half(change: Tensor) -> dict[str, Tensor]:
    scale = _scale(float(change.abs().max()) if change.numel() else 0.0, LARGEST)
    return {DIFFERENCE: (change / scale).half().contiguous(), SCALE: torch.tensor(scale)}


def _scale(largest: float, room: float) -> float:
    """The power of two by which `largest` comes into [room / 2, room)."""
    if largest == 0:
        return 1.0
    exponent = math.frexp(largest)[1] - math.frexp(room)[1] + 1
    return 2.0 ** max(-126, min(127, exponent))  # a float32 of full precision


def _low_rank(changes: Mapping[str, Tensor], error: float) -> dict[str, dict[str, Tensor]]:
    if not 0 < error < 1:
        raise ConfigError(f"The error of a low-rank pack must be above 0 and below 1, got {error}.")
    energies = {name: float(change.square().sum()) for name, change in changes.items()}
    for name, energy in energies.items():
        _check_fits(name, math.isfinite(energy))
    share = max(error**2 - ROUNDING**2, 0.0)
    chosen = choose(changes, math.fsum(energies.values()) * share, most=min(UNEVEN**2 * share, 1.0))
    return {
        name: _factored(change, chosen[name].rows, chosen[name].rank) if chosen[name].rows else _half(change)
        for name, change in changes.items()
    }


def _factored(change: Tensor, rows: int, rank: int) -> dict[str, Tensor]:
    left, right = factors(change, rows, rank)
    scale = _scale(float(left[:, :1].norm() * right[:1].norm()), LARGEST_PRODUCT)
    half = [(factor / math.sqrt(scale)).half().contiguous() for factor in (left, right)]
    return {LEFT: half[0], RIGHT: half[1], SCALE: torch.tensor(scale)}


def _grouped(original: Mapping[str, Tensor], stored: Mapping[str, Tensor], source: str) -> dict[str, dict[str, Tensor]]:
    """Parts by the tensor that they make."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        name, _, part = key.rpartition("@")
        if part not in WHOLE | FACTORS:
            raise PackError(f"{source} holds {key!r:.100}, which is no part of a difference; pull the pack again.")
        groups.setdefault(name, {})[part] = tensor
    _check_names(original, groups, source)
    return groups


def _check_names(original: Mapping[str, Tensor], found: Mapping[str, object], source: str) -> None:
    if strange := found.keys() - original.keys():
        raise PackError(f"{_elsewhere(source)}: this one has no {_first(strange)}.")
    if missing := original.keys() - found.keys():
        raise PackError(f"{_elsewhere(source)}: it lacks {_first(missing)}.")


def _elsewhere(source: str) -> str:
    return f"{source} was made for another backbone or training group"


def _first(names: Iterable[str]) -> str:
    return f"{min(names)!r:.100}"


def _check(tensor: Tensor, key: str, shape: Iterable[int], dtype: torch.dtype, source: str) -> None:
    shape = tuple(shape)
    if tuple(tensor.shape) != shape:
        raise PackError(f"{_elsewhere(source)}: its {key} has shape {tuple(tensor.shape)}, not {shape}.")
    if tensor.dtype != dtype:
        raise PackError(f"{_elsewhere(source)}: its {key} is of {tensor.dtype}, not {dtype}.")


def _changed(
    original: Mapping[str, Tensor], groups: Mapping[str, Mapping[str, Tensor]], format: Format, source: str
) -> dict[str, Tensor]:
    forms = (WHOLE,) if format == "half" else (WHOLE, FACTORS)
    trained = {}
    for name, base in original.items():
        parts = groups[name]
        if parts.keys() not in forms:
            raise PackError(
                f"{source} holds {' and '.join(sorted(parts))} of {name}, which do not make a difference of format "
                f"{format!r}; pull the pack again."
            )
        _check_scale(parts[SCALE], f"{name}@{SCALE}", source)
        change = _product(parts, name, base, source) if parts.keys() == FACTORS else _whole(parts, name, base, source)
        trained[name] = (_exact(base) + change * parts[SCALE].double()).to(base.dtype)
    return trained


def _check_scale(scale: Tensor, key: str, source: str) -> None:
    _check(scale, key, (), torch.float32, source)
    if math.frexp(float(scale))[0] != 0.5:
        raise PackError(f"{source} has {float(scale)} for {key}, which must be a power of two; pull the pack again.")


def _whole(parts: Mapping[str, Tensor], name: str, base: Tensor, source: str) -> Tensor:
    _check(parts[DIFFERENCE], f"{name}@{DIFFERENCE}", base.shape, torch.float16, source)
    return parts[DIFFERENCE].double()


def _product(parts: Mapping[str, Tensor], name: str, base: Tensor, source: str) -> Tensor:
    left, right = parts[LEFT], parts[RIGHT]
    rows = left.shape[0] if left.ndim == 2 else 0
    if rows not in splits(base.shape):
        shapes = f"its {name}@{LEFT} has shape {tuple(left.shape)}, which makes no {tuple(base.shape)}"
        raise PackError(f"{_elsewhere(source)}: {shapes}.")
    columns, rank = base.numel() // rows, left.shape[1]
    if rank > min(rows, columns):
        raise PackError(
            f"{source} has {rank} columns in {name}@{LEFT}, more than its rank can be; pull the pack again."
        )
    _check(left, f"{name}@{LEFT}", (rows, rank), torch.float16, source)
    _check(right, f"{name}@{RIGHT}", (rank, columns), torch.float16, source)
    return (left.double() @ right.double()).reshape(base.shape)
