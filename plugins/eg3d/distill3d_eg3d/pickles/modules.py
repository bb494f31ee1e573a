"""The state dict of a pickled module: its parameters and persistent buffers and its children's, by full name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from distill3d_eg3d.pickles.errors import DOWNLOAD, PickleError, shown
from distill3d_eg3d.pickles.limits import Budget, Limits
from distill3d_eg3d.pickles.records import Record, TensorRef

NAME = re.compile(r"\w+", re.ASCII)  # of one module or tensor: torch allows no dots


def tensor_references(module: Record, limits: Limits, values: Budget) -> dict[str, TensorRef]:
    """Full name and reference of each entry of the module's state dict, in torch's order; None entries are left out.

    Raises:
        PickleError: if a module has no tables of tensors and modules, or a name occurs twice, or they nest too deep.
    """
    found: dict[str, TensorRef] = {}
    for name, reference in _walk(module, "", limits.nesting, values):
        if name in found:
            raise PickleError(f"it holds two tensors called {shown(name)}. {DOWNLOAD}")
        found[name] = reference
    return found


def children(module: Record) -> dict[Any, Any]:
    """The modules in a module, by name."""
    return _table(module, "_modules", "a module")


def _walk(module: Record, prefix: str, depth: int, values: Budget) -> Iterator[tuple[str, TensorRef]]:
    if depth == 0:
        raise PickleError(f"its modules are nested deeper than any network's. {DOWNLOAD}")
    where = shown(prefix[:-1] or "G_ema")
    transient = module.attributes().get("_non_persistent_buffers_set", ())  # torch before 1.5 had none
    if not isinstance(transient, set | tuple | list):
        raise PickleError(f"the set of transient buffers of {where} is no set. {DOWNLOAD}")
    for table in ("_parameters", "_buffers"):
        for name, value in _entries(module, table, where, values):
            if name not in transient or table == "_parameters":
                yield prefix + name, _tensor(value, prefix + name)
    for name, value in _entries(module, "_modules", where, values):
        if not isinstance(value, Record):
            raise PickleError(f"{shown(prefix + name)} is no module. {DOWNLOAD}")
        yield from _walk(value, f"{prefix}{name}.", depth - 1, values)


def _table(module: Record, table: str, where: str) -> dict[Any, Any]:
    found = module.attributes().get(table)
    if not isinstance(found, dict):
        raise PickleError(f"{where} lacks its table {table}, so it is no torch module. {DOWNLOAD}")
    return found


def _entries(module: Record, table: str, where: str, values: Budget) -> Iterator[tuple[str, Any]]:
    for name, value in _table(module, table, where).items():
        values.spend()
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise PickleError(f"{where} holds something called {shown(name)}. {DOWNLOAD}")
        if value is not None:
            yield name, value


def _tensor(value: Any, name: str) -> TensorRef:
    if not isinstance(value, TensorRef):
        raise PickleError(f"{shown(name)} is no tensor. {DOWNLOAD}")
    return value
