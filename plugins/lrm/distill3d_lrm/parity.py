"""Compare this implementation with reference data of the official networks, tensor by tensor.

    python -m distill3d_lrm.parity CASE.json [...] [--reference]

A case is CASE.json and CASE.safetensors: a config, inputs and what the official TripoSR or OpenLRM made of them, with
weights that follow from their names. One line per tensor, and one per norm of a parameter's gradient; exits with 1 if
any is outside of its limit. What was given to the network is not compared, and named: inputs, random numbers, probes,
and the `variant_newtf_` tensors, which show what TripoSR's public weights do *not* expect.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from distill3d.errors import Distill3dError, WeightsError
from distill3d_lrm.model import ReconstructionModel
from distill3d_lrm.observations import GRADIENT_NORM, Observed, observe
from distill3d_lrm.openlrm import OpenLRM, OpenLRMConfig
from distill3d_lrm.triposr import TripoSR, TripoSRConfig

GIVEN = ("input_", "source_camera", "render_", "draw::", "probe_", "query_points", "variant_newtf_")
# Largest relative L2 distance by the first part of a name that fits.
LIMITS = (
    ("grid_", 1e-4),
    ("query_sigma", 1e-4),
    ("query_density", 1e-4),
    ("coarse_weights", 1e-4),
    ("fine_depths", 1e-4),
    ("opacity", 1e-4),
    ("depth", 1e-4),
    ("", 1e-5),  # tokens, planes, colours, rays
)
GRADIENTS = {"TripoSR": 1e-4, "OpenLRM": 2e-3}  # OpenLRM: a sample may fall on the other side of an edge
VISIBLE = 1e-3  # a difference that counts
SEEN = 0.01  # opacity from which OpenLRM's depth means something
UNDEFINED = 1e-4  # of all gradients: where a parameter has less, only rounding is left (a bias of attention's keys)


@dataclass(frozen=True)
class Line:
    """One tensor's comparison."""

    name: str
    largest: float  # absolute difference
    relative: float  # L2
    visible: float  # share of elements that differ by more than VISIBLE
    limit: float
    ok: bool

    def __str__(self) -> str:
        word = "ok" if self.ok else "FAILED"
        return (
            f"{self.name:84s} max {self.largest:9.2e}  rel {self.relative:9.2e}  >1e-3 {self.visible:8.4%}  "
            f"limit {self.limit:7.1e}  {word}"
        )


def weight_of(key: str, shape: tuple[int, ...], notes: Mapping[str, Any]) -> Tensor:
    """The weight that the reference data was made with, a function of its name and shape."""
    seed = int.from_bytes(hashlib.sha256((notes["salt"] + key).encode()).digest()[:8], "little")
    n = np.random.Generator(np.random.PCG64(seed)).standard_normal(shape).astype(np.float32)
    last = key.rpartition(".")[2]
    if len(shape) == 1:
        shift = np.float32(0 if last.endswith("bias") else 1)
        return torch.from_numpy(shift + np.float32(0.1) * n)
    if "weight" not in last:
        return torch.from_numpy(np.float32(0.5) * n)
    gain = notes["decoder_gain"] if key.startswith(notes["decoder_prefix"]) else 1.0
    return torch.from_numpy(np.float32(gain / math.sqrt(math.prod(shape[1:]))) * n)


def weights_by_name(notes: Mapping[str, Any]) -> dict[str, Tensor]:
    """All of a case.

    Raises:
        WeightsError: if one is not what the reference data was made with.
    """
    found = {}
    for entry in notes["state_dict"]:
        key = entry["key"]
        found[key] = weight_of(key, tuple(entry["shape"]), notes)
        digest = hashlib.sha256(found[key].numpy().astype("<f4").tobytes()).hexdigest()
        if digest[:16] != entry["sha256_le_f32"]:
            raise WeightsError(f"{key} is not the weight that the reference data was made with")
    return found


@dataclass(frozen=True)
class Case:
    """Reference data, and the network that should reproduce it."""

    notes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    model: ReconstructionModel

    @property
    def given(self) -> list[str]:
        """Names of what is not compared."""
        return sorted(name for name in self.tensors if name.startswith(GIVEN))

    @property
    def wanted(self) -> dict[str, Tensor]:
        """Tensors, and the norms of gradients, 0 for a parameter that nothing reads."""
        norms = self.notes.get("grad_norms_all_parameters", {})
        return {
            **{name: value for name, value in self.tensors.items() if not name.startswith(GIVEN)},
            **{GRADIENT_NORM + name: torch.tensor(norm or 0.0).double() for name, norm in norms.items()},
        }


def load_case(path: Path, *, reference: bool = False) -> Case:
    """Read CASE.json and CASE.safetensors, and make the network with its weights."""
    notes = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(path.with_suffix(".safetensors"))
    model = model_of(notes, reference=reference).eval()
    model.load_state_dict(weights_by_name(notes), strict=True)
    return Case(notes, tensors, model)


def model_of(notes: Mapping[str, Any], *, reference: bool = False) -> ReconstructionModel:
    """The network that a case, or a list of published keys, describes."""
    config = notes["config"]
    if notes["model"] == "TripoSR":
        return TripoSR(TripoSRConfig.from_dict(config, notes.get("vit_config")), reference=reference)
    if notes["model"] == "OpenLRM":
        encoder, side = notes.get("encoder_config"), notes.get("source_image_size")
        return OpenLRM(OpenLRMConfig.from_dict(config, encoder, image_size=side), reference=reference)
    raise WeightsError(f"model is TripoSR or OpenLRM, got {notes['model']!r}")


def compare(case: Case, observed: Observed) -> Iterator[Line]:
    """Each reference tensor against what was observed; one that was not observed fails."""
    wanted = case.wanted
    for name, want in wanted.items():
        limit = _limit(name, want, case.notes["model"])
        got = observed.get(name)
        if got is None or got.shape != want.shape:
            yield Line(name, float("inf"), float("inf"), 1.0, limit, False)
            continue
        difference, scale = (got.double() - want.double()).abs(), want.double()
        if name == "depth":
            seen = wanted["opacity"] > SEEN
            difference, scale = difference[seen], scale[seen]
        relative = float(difference.norm() / scale.norm().clamp_min(_least(name, wanted)))
        visible = float((difference > VISIBLE).double().mean())
        yield Line(name, float(difference.max()), relative, visible, limit, relative <= limit)


def _limit(name: str, want: Tensor, model: str) -> float:
    if want.dtype == torch.uint8:
        return 0.0
    if name.startswith("grad_"):
        return GRADIENTS[model]
    return next(limit for start, limit in LIMITS if name.startswith(start))


def _least(name: str, wanted: Mapping[str, Tensor]) -> float:
    """The smallest norm that a difference is divided by."""
    if not name.startswith(GRADIENT_NORM):
        return 1e-30
    norms = torch.stack([value for other, value in wanted.items() if other.startswith(GRADIENT_NORM)])
    return UNDEFINED * float(norms.norm())


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m distill3d_lrm.parity", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--reference", action="store_true", help="the published recipe literally, not the fast form")
    given = parser.parse_args(arguments)
    good = total = 0
    for path in given.cases:
        try:
            case = load_case(path, reference=given.reference)
            print(f"{path.stem} (given, so not compared: {', '.join(case.given)})")
            lines = list(compare(case, observe(case)))
        except (Distill3dError, OSError, RuntimeError, ValueError, KeyError) as error:
            print(f"{path} cannot be compared: {type(error).__name__}: {error}")
            total += 1
            continue
        for line in lines:
            print(line)
            good, total = good + line.ok, total + 1
    print(f"{good} of {total} tensors within limits")
    return 0 if good == total > 0 else 1


if __name__ == "__main__":
    sys.exit(main())
