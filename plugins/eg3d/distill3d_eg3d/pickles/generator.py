"""What is read of a training pickle: `G_ema`, its architecture, its options and its tensors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill3d_eg3d.pickles.calls import CHECKPOINT_CALLS
from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import Budget, Limits
from distill3d_eg3d.pickles.machine import Machine
from distill3d_eg3d.pickles.modules import children, tensor_references
from distill3d_eg3d.pickles.plain import plain
from distill3d_eg3d.pickles.records import Record, TensorRef
from distill3d_eg3d.pickles.sniff import SNAPSHOT, refuse_others
from distill3d_eg3d.pickles.spans import Cursor, Span
from distill3d_eg3d.pickles.storages import MAGIC_NUMBER
from distill3d_eg3d.pickles.tensors import read_tensor

FIELDS = ("rendering_kwargs", "neural_rendering_resolution", "_init_kwargs")
DEFAULT_LIMITS = Limits()
GENERATOR = "a tri-plane generator (EG3D's or PanoHead's TriPlaneGenerator)"


@dataclass(frozen=True)
class PickledGenerator:
    """`G_ema` of a training pickle, as it was pickled.

    `rendering_kwargs` and `neural_rendering_resolution` are the live attributes, which the trainer changes while it
    fades the resolution in; the copy in `init_kwargs` is what training began with.
    """

    class_name: str  # "TriPlaneGenerator"
    init_kwargs: dict[str, Any]  # plain values, as are rendering_kwargs
    rendering_kwargs: dict[str, Any]
    neural_rendering_resolution: int
    plane_axes: Tensor | None  # (3, 3, 3), of the renderer; it is in no state dict
    tensors: dict[str, Tensor]  # parameters and persistent buffers by full name, in the dtype of the file


def read_generator(path: Path, *, limits: Limits = DEFAULT_LIMITS) -> PickledGenerator:
    """Read `G_ema` of a training pickle of EG3D or PanoHead; nothing of the pickle is executed.

    Weights stay in the file until they are asked for, and only `G_ema`'s are: the memory needed is that of its tensors
    (a third of a usual file), of its largest weight once more, and some 10 MB for names and options. In a file of
    protocol 2 weights are text; there the largest of the file is needed five times more, while it is decoded.

    Args:
        path: a training snapshot, `.pkl`, protocols 2 to 5.
        limits: what the file may ask for.
    Raises:
        PickleError: for everything wrong with the file, one that cannot be opened included.
    """
    with _one_error(path), open(path, "rb") as file:
        size = file.seek(0, 2)
        if size > limits.file_bytes:
            raise PickleError(
                f"it has {size:,} bytes, more than the {limits.file_bytes:,} expected at most. {SNAPSHOT}"
            )
        snapshot = Span(file, 0, size)
        refuse_others(snapshot)
        top = Machine(Cursor(snapshot, limits), CHECKPOINT_CALLS, limits).run()
        return _generator(_ema(top), limits, Budget(2 * size, "bytes of weights"))


@contextmanager
def _one_error(path: Path) -> Iterator[None]:
    """Whatever goes wrong is a `PickleError` that names the file."""
    try:
        yield
    except PickleError as error:
        raise PickleError(f"Cannot read {path}: {error}") from error.__cause__
    except OSError as error:
        raise PickleError(f"Cannot open {path}: {error.strerror}. Check the path.") from None
    except MemoryError:
        raise PickleError(f"Cannot read {path}: there is not enough memory for its weights. Free some.") from None
    except Exception as error:  # the last line of defence: a hostile file must find no way around the errors above
        raise PickleError(f"Cannot read {path}: it is damaged ({type(error).__name__}). {DOWNLOAD}") from error


def _ema(top: Any) -> Record:
    if top == MAGIC_NUMBER:
        raise PickleError(f"it is an old torch.save file, not a training pickle. {SNAPSHOT}")
    if not isinstance(top, dict):
        raise PickleError(f"it holds {_kind(top)} instead of a training snapshot's dict with G_ema. {SNAPSHOT}")
    if "G_ema" not in top:
        names = ", ".join(shown(name) for name in list(top)[:8])
        raise PickleError(f"it has no G_ema, only {names or 'nothing'}; a discriminator alone cannot draw. {SNAPSHOT}")
    if not isinstance(top["G_ema"], Record):
        raise PickleError(f"its G_ema is {_kind(top['G_ema'])}, not a network. {SNAPSHOT}")
    return top["G_ema"]


def _generator(network: Record, limits: Limits, reading: Budget) -> PickledGenerator:
    _check_fields(network)
    state, values = network.attributes(), Budget(limits.values, "modules, tensors and options")
    references = tensor_references(network, limits, values)
    return PickledGenerator(
        class_name=network.kind.name,
        init_kwargs=_options(state, "_init_kwargs", limits, values),
        rendering_kwargs=_options(state, "rendering_kwargs", limits, values),
        neural_rendering_resolution=_resolution(state["neural_rendering_resolution"]),
        plane_axes=_plane_axes(network, reading),
        tensors={name: read_tensor(reference, reading) for name, reference in references.items()},
    )


def _check_fields(network: Record) -> None:
    state = network.attributes()
    missing = [field for field in FIELDS if field not in state]
    if "backbone" not in children(network) or missing[:2] == list(FIELDS[:2]):
        raise PickleError(f"its G_ema is {_kind(network)}, not {GENERATOR}. {SNAPSHOT}")
    if missing:
        raise PickleError(
            f"its G_ema, {_kind(network)}, lacks {', '.join(missing)}, so it is not {GENERATOR}. {SNAPSHOT}"
        )


def _options(state: dict[Any, Any], field: str, limits: Limits, values: Budget) -> dict[str, Any]:
    options = plain(state[field], field, limits, values)
    if not isinstance(options, dict):
        raise PickleError(f"{field} of its G_ema is {_kind(options)}, not a dict of options. {SNAPSHOT}")
    return options


def _resolution(value: Any) -> int:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 1 <= value <= 4096 or value != int(value):
        raise PickleError(f"its neural_rendering_resolution is {_kind(value)}, not one number of pixels. {SNAPSHOT}")
    return int(value)


def _plane_axes(network: Record, reading: Budget) -> Tensor | None:
    renderer = children(network).get("renderer")
    axes = renderer.attributes().get("plane_axes") if isinstance(renderer, Record) else None
    if axes is None:
        return None
    if not isinstance(axes, TensorRef) or axes.shape != (3, 3, 3):
        raise PickleError(f"plane_axes of its renderer is {_kind(axes)}, not a tensor (3, 3, 3). {DOWNLOAD}")
    return read_tensor(axes, reading).to(torch.float32)


def _kind(value: Any) -> str:
    if isinstance(value, Record):
        return f"a {shown(value.kind.name)}"
    if isinstance(value, TensorRef):
        return f"a tensor {value.shape}"
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**63):
        return repr(value)
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"
