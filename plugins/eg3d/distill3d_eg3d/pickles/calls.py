"""The functions that a checkpoint may call, and what stands for each: the allow-list.

Old spellings are those of Python 2 (`__builtin__`, `copy_reg`), of numpy before 2 (`numpy.core`) and of torch before 2.
Every entry makes plain values or records; none imports or calls what it stands for. A function that copies a container
pays for each item, so that a short pickle cannot copy a long list many times.
"""

from __future__ import annotations

from typing import Any

from distill3d_eg3d.pickles.arguments import at_least, checked, misused, sizes, text
from distill3d_eg3d.pickles.limits import Budget
from distill3d_eg3d.pickles.machine import Call
from distill3d_eg3d.pickles.numpy_calls import NUMPY_CALLS
from distill3d_eg3d.pickles.records import Global, Record
from distill3d_eg3d.pickles.spans import EncodedText, TextSpan
from distill3d_eg3d.pickles.torch_calls import TORCH_CALLS
from distill3d_eg3d.pickles.values import fresh_dict, fresh_set, made

PERSISTENCE = "torch_utils.persistence"
Arguments = tuple[Any, ...]


def reconstruct_persistent(arguments: Arguments, opcodes: Budget) -> Record:
    """A persistent network: the name of its class and its state. Its `module_src` is never looked at."""
    name = f"{PERSISTENCE}._reconstruct_persistent_obj"
    meta = checked(at_least(arguments, 1, name)[0], dict, name)
    class_name, state = meta.get("class_name"), checked(meta.get("state"), dict, name)
    if meta.get("type") != "class" or not checked(class_name, str, name).isidentifier():
        raise misused(name)
    return Record(Global(PERSISTENCE, class_name), state)


def ordered_dict(arguments: Arguments, opcodes: Budget) -> dict[Any, Any]:
    """An OrderedDict, empty or, as Python 2 wrote it, of a list of pairs."""
    name = "collections.OrderedDict"
    items = checked(arguments[0], list, name) if arguments else []
    opcodes.spend(len(items))
    if not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in items):
        raise misused(name)
    return fresh_dict((pair[0], pair[1]) for pair in items)


def plain_set(arguments: Arguments, opcodes: Budget) -> set[Any]:
    """A set, as protocols before 4 wrote it: of a list."""
    items = checked(arguments[0], list, "set") if arguments else []
    opcodes.spend(len(items))
    return fresh_set(items)


def plain_frozenset(arguments: Arguments, opcodes: Budget) -> frozenset[Any]:
    """A frozenset, as `plain_set`."""
    return frozenset(plain_set(arguments, opcodes))


def plain_complex(arguments: Arguments, opcodes: Budget) -> complex:
    """A complex number of its two parts."""
    real, imaginary = at_least(arguments, 2, "complex")
    return complex(checked(real, float, "complex"), checked(imaginary, float, "complex"))


def plain_bytes(arguments: Arguments, opcodes: Budget) -> bytes:
    """The empty bytes, which protocol 2 writes as a call without arguments."""
    if arguments:
        raise misused("bytes")
    return b""


def encode(arguments: Arguments, opcodes: Budget) -> EncodedText:
    """Bytes, which protocol 2 writes as text of the same characters."""
    written, encoding = at_least(arguments, 2, "_codecs.encode")
    if text(encoding, "_codecs.encode") not in ("latin1", "latin-1"):
        raise misused("_codecs.encode")
    return EncodedText(checked(written, (str, TextSpan), "_codecs.encode"))


def new_object(arguments: Arguments, opcodes: Budget) -> Any:
    """`copyreg.__newobj__(cls, *args)` and `copyreg._reconstructor(cls, base, state)`: an object without its state."""
    return made(at_least(arguments, 1, "copyreg")[0])


def size_tuple(arguments: Arguments, opcodes: Budget) -> tuple[int, ...]:
    """A `torch.Size`."""
    return sizes(at_least(arguments, 1, "torch.Size")[0], "torch.Size")


def spelled(spellings: tuple[str, ...], calls: dict[str, Call]) -> dict[str, Call]:
    return {f"{module}.{name}": call for module in spellings for name, call in calls.items()}


CHECKPOINT_CALLS: dict[str, Call] = {
    f"{PERSISTENCE}._reconstruct_persistent_obj": reconstruct_persistent,
    "collections.OrderedDict": ordered_dict,
    "_codecs.encode": encode,
    "torch.Size": size_tuple,
    **spelled(
        ("builtins", "__builtin__"),
        {"set": plain_set, "frozenset": plain_frozenset, "complex": plain_complex, "bytes": plain_bytes},
    ),
    **spelled(("copyreg", "copy_reg"), {"__newobj__": new_object, "_reconstructor": new_object}),
    **TORCH_CALLS,
    **NUMPY_CALLS,
}
