"""Reads an EG3D or PanoHead training pickle without unpickling it.

`read_generator` interprets the opcodes itself, over `pickletools.genops`: nothing is imported, called or executed, and
whatever is wrong with a file ends in one `PickleError`, a `distill3d.errors.WeightsError`.
"""

from __future__ import annotations

from distill3d_eg3d.pickles.errors import PickleError
from distill3d_eg3d.pickles.generator import PickledGenerator, read_generator
from distill3d_eg3d.pickles.limits import Limits

__all__ = ["Limits", "PickleError", "PickledGenerator", "read_generator"]
