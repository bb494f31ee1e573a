"""How a pack stores what a run trained.

- "full": the trained tensors themselves, by their names. Exact.
- "half": the difference to the base in float16, NAME@difference, times the power of two NAME@scale.
- "low-rank": in eight bits, the difference as a product NAME@left (m, r) times NAME@scale (r,) times NAME@right (r, n);
  or as NAME@rows (m, n), each times its NAME@scale (m,); or as "half": whichever takes the fewest bytes for the error.

A part's name is what follows the last @, so names of tensors may hold any character.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

from distill3d.errors import ConfigError, PackError
from distill3d.packs.config import Format
from distill3d.packs.low_rank import Choice, choose, factors, in_eight_bits, splits

# Of the change, relative L2. Runs of the embedded world (zombie, pixar, statue) take 1.04 MB with it instead of 4.56,
# their style and identity figures are the full ones', their pictures are half a grey level of 255 away.
LOW_RANK_ERROR = 0.05
UNEVEN = 2.0  # about how many times that error a single tensor may have
ATTEMPTS = 8  # of aiming lower, where the energies that were reckoned with were not those that came out
DIFFERENCE, ROWS, LEFT, RIGHT, SCALE = "difference", "rows", "left", "right", "scale"
HALF = frozenset({DIFFERENCE, SCALE})
EIGHT_BITS = (frozenset({ROWS, SCALE}), frozenset({LEFT, RIGHT, SCALE}))
DTYPES = {
    DIFFERENCE: torch.float16,
    ROWS: torch.int8,
    LEFT: torch.int8,
    RIGHT: torch.int8,
    SCALE: torch.float32,
}
LARGEST = 2.0**15  # what a scale puts the largest change just below: float16 then keeps 11 bits down to 2^-29 of it

Parts = Mapping[str, Tensor]  # of one tensor


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
            one is at most about twice as much. Below some 0.0002 it is that of "half".
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


def _halves(changes: Mapping[str, Tensor]) -> dict[str, Parts]:
    return {name: _half(change) for name, change in changes.items()}


def _half(change: Tensor) -> Parts:
    scale = _scale(float(change.abs().max()) if change.numel() else 0.0)
    return {DIFFERENCE: (change / scale).half().contiguous(), SCALE: torch.tensor(scale)}


def _scale(largest: float) -> float:
    """The power of two by which `largest` comes just below LARGEST."""
    if largest == 0:
        return 1.0
    exponent = math.frexp(largest)[1] - math.frexp(LARGEST)[1] + 1
    return 2.0 ** max(-126, min(127, exponent))  # a float32 of full precision


def _low_rank(changes: Mapping[str, Tensor], error: float) -> dict[str, Parts]:
    if not 0 < error < 1:
        raise ConfigError(f"The error of a low-rank pack must be above 0 and below 1, got {error}.")
    energies = {name: float(change.square().sum()) for name, change in changes.items()}
    for name, energy in energies.items():
        _check_fits(name, math.isfinite(energy))
    energy = math.fsum(energies.values())
    for attempt in range(ATTEMPTS):
        share = error**2 / 2**attempt
        chosen = choose(changes, energy * share, most=min(UNEVEN**2 * share, 1.0))
        stored = {name: _few_bytes(change, chosen[name]) for name, change in changes.items()}
        wrong = (float((_change(stored[name], c.shape) - c).square().sum()) for name, c in changes.items())
        if math.fsum(wrong) <= energy * error**2:
            return stored
    return _halves(changes)


def _few_bytes(change: Tensor, choice: Choice) -> Parts:
    if choice.form == "half":
        return _half(change)
    if choice.form == "rows":
        rows, scale = in_eight_bits(change.reshape(choice.rows, -1))
        return {ROWS: rows, SCALE: scale.float()}
    left, right = factors(change, choice.rows, choice.rank)
    columns, scale = in_eight_bits(left.T)
    rows, other = in_eight_bits(right)
    return {LEFT: columns.T.contiguous(), RIGHT: rows, SCALE: (scale * other).float()}


def _change(parts: Parts, shape: Iterable[int]) -> Tensor:
    """The difference, float64, that these parts make."""
    scale = parts[SCALE].double()
    if DIFFERENCE in parts:
        return parts[DIFFERENCE].double() * scale
    if ROWS in parts:
        return (parts[ROWS].double() * scale[:, None]).reshape(*shape)
    return ((parts[LEFT].double() * scale) @ parts[RIGHT].double()).reshape(*shape)


def _grouped(original: Mapping[str, Tensor], stored: Mapping[str, Tensor], source: str) -> dict[str, dict[str, Tensor]]:
    """Parts by the tensor that they make."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in stored.items():
        name, _, part = key.rpartition("@")
        if part not in DTYPES:
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
    original: Mapping[str, Tensor], groups: Mapping[str, Parts], format: Format, source: str
) -> dict[str, Tensor]:
    forms = (HALF,) if format == "half" else (HALF, *EIGHT_BITS)
    trained = {}
    for name, base in original.items():
        parts = groups[name]
        if parts.keys() not in forms:
            raise PackError(
                f"{source} holds {' and '.join(sorted(parts))} of {name}, which do not make a difference of format "
                f"{format!r}; pull the pack again."
            )
        _check_parts(parts, name, base.shape, source)
        trained[name] = (_exact(base) + _change(parts, base.shape)).to(base.dtype)
    return trained


def _check_parts(parts: Parts, name: str, shape: torch.Size, source: str) -> None:
    """Refuse parts that make no change of this shape."""
    wanted = _wanted_shapes(parts, name, shape, source)
    for part, tensor in parts.items():
        _check(tensor, f"{name}@{part}", wanted[part], DTYPES[part], source)
    scale = parts[SCALE]
    if DIFFERENCE in parts and math.frexp(float(scale))[0] != 0.5:
        raise PackError(
            f"{name}@{SCALE} in {source} is {float(scale)}, it must be a power of two; pull the pack again."
        )
    if not (scale >= 0).all():
        raise PackError(f"{name}@{SCALE} in {source} holds numbers below 0; pull the pack again.")


def _wanted_shapes(parts: Parts, name: str, shape: torch.Size, source: str) -> dict[str, tuple[int, ...]]:
    if DIFFERENCE in parts:
        return {DIFFERENCE: tuple(shape), SCALE: ()}
    part = ROWS if ROWS in parts else LEFT
    given = tuple(parts[part].shape)
    if len(given) != 2 or given[0] not in splits(shape):
        raise PackError(f"{_elsewhere(source)}: its {name}@{part} has shape {given}, which makes no {tuple(shape)}.")
    rows, columns = given[0], shape.numel() // max(given[0], 1)
    if part == ROWS:
        return {ROWS: (rows, columns), SCALE: (rows,)}
    rank = given[1]
    if rank > min(rows, columns):
        raise PackError(
            f"{name}@{part} in {source} has {rank} columns, more than its rank can be; pull the pack again."
        )
    return {LEFT: (rows, rank), RIGHT: (rank, columns), SCALE: (rank,)}
