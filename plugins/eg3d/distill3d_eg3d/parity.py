"""Compare this implementation with reference data of the official networks, tensor by tensor.

    python -m distill3d_eg3d.parity CASE.json [...] [--reference]

A case is CASE.json and CASE.safetensors: sizes, settings, inputs and what the official network made of them, with
weights that follow from their names. One line per tensor; exits with 1 if any is outside of its limit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
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
from distill3d_eg3d.architecture import architecture_of
from distill3d_eg3d.generator import Generator
from distill3d_eg3d.observations import LOSSES, Observed, observe

# Largest relative L2 distance by the first part of a name that fits: three times what an independent second
# implementation of the reference data reached.
LIMITS = (
    ("ws", 3e-6),
    ("ray_", 3e-6),
    ("delta_c", 3e-6),
    ("apply_delta_c", 3e-6),
    ("backbone.", 3e-5),
    ("planes", 3e-5),
    ("bcg", 3e-5),
    ("points", 3e-5),
    ("grad1.", 1.5e-2),
    ("grad2.", 3e-4),
    ("image_raw", 3e-4),
    ("image_depth", 3e-4),
    ("image_mask", 3e-4),
    ("image", 3.3e-4),
    ("", 3e-4),
)
PICTURES = ("image", "nobg.image", "forward_full_call.image", "sr_rgb_in")
VISIBLE, MOST_VISIBLE = 1e-3, 1e-3  # a difference that counts, and the share of a picture that may have it


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
            f"{self.name:58s} max {self.largest:9.2e}  rel {self.relative:9.2e}  >1e-3 {self.visible:8.4%}  "
            f"limit {self.limit:7.1e}  {word}"
        )


def rng_of(salt: str, name: str) -> np.random.Generator:
    """The numbers that belong to a name."""
    seed = int.from_bytes(hashlib.sha256((salt + name).encode()).digest()[:8], "little")
    return np.random.Generator(np.random.PCG64(seed))


def weights_by_name(keys: Mapping[str, Any], salt: str, sigma_bias: float, layers: int) -> dict[str, Tensor]:
    """The weights that the reference data was made with, a function of their names and shapes."""
    return {
        key: torch.as_tensor(_weight(key, tuple(entry["shape"]), salt, sigma_bias, f"t_mapping.fc{layers - 1}."))
        for key, entry in keys.items()
    }


def _weight(key: str, shape: tuple[int, ...], salt: str, sigma_bias: float, last_offset: str) -> np.ndarray:
    if key.endswith("resample_filter"):
        return np.outer([1, 3, 3, 1], [1, 3, 3, 1]).astype(np.float32) / 64
    n = np.asarray(rng_of(salt, key).standard_normal(shape)).astype(np.float32)
    if key.startswith("backbone.mapping.fc"):
        return n * np.float32(100 if key.endswith(".weight") else 10)
    if key.startswith("t_mapping."):
        small = key == "t_mapping.w_avg" or key.startswith(last_offset)
        return n * np.float32(0.02 if small else 1 if key.endswith(".weight") else 0.1)
    if key.endswith(".affine.bias"):
        return 1 + np.float32(0.1) * n
    if key == "decoder.net.2.weight":
        n[0] *= 8
        return n
    if key == "decoder.net.2.bias":
        n *= np.float32(0.1)
        n[0] = sigma_bias
        return n
    return n * np.float32(0.1) if key.endswith((".bias", ".noise_strength", ".w_avg")) else n


def checksum(weights: Mapping[str, Tensor]) -> str:
    """Of sorted names and little-endian float32 bytes."""
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(key.encode() + weights[key].numpy().astype("<f4").tobytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class Case:
    """Reference data, and the network that should reproduce it."""

    notes: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    generator: Generator

    @property
    def wanted(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.tensors.items() if not name.startswith("input.")}

    def normals(self, name: str, shape: tuple[int, ...]) -> Tensor:
        return torch.from_numpy(rng_of(self.notes["salt"], name).standard_normal(shape).astype(np.float32))


def load_case(path: Path, *, reference: bool = False) -> Case:
    """Read CASE.json and CASE.safetensors, and make the network with its weights."""
    notes = json.loads(path.read_text(encoding="utf-8"))
    tensors = load_file(path.with_suffix(".safetensors"))
    if notes["call"]["noise_mode"] not in ("const", "none"):
        raise WeightsError(f"noise_mode {notes['call']['noise_mode']!r} cannot be repeated")
    architecture = architecture_of(
        notes["G_kwargs"],
        notes["rendering_kwargs"],
        notes["call"]["neural_rendering_resolution"],
        notes.get("plane_axes"),
        panohead=notes["family"] == "panohead",
    )
    generator = Generator(architecture, reference=reference).eval().requires_grad_(False)
    weights = weights_by_name(notes["state_dict"], notes["salt"], notes["sigma_bias"], architecture.mapping_layers)
    if "weights_sha256" in notes and checksum(weights) != notes["weights_sha256"]:
        raise WeightsError("the weights are not those that the reference data was made with")
    generator.load_state_dict(weights, strict=True)
    return Case(notes, tensors, generator)


def compare(case: Case, observed: Observed) -> Iterator[Line]:
    """Each reference tensor against what was observed; one that was not observed fails."""
    for name, want in case.wanted.items():
        limit = next(limit for start, limit in LIMITS if name.removeprefix("nobg.").startswith(start))
        got = observed.get(name)
        if got is None or got.shape != want.shape:
            yield Line(name, float("inf"), float("inf"), 1.0, limit, False)
            continue
        difference = (got.double() - want.double()).abs()
        relative = float(difference.norm() / _scale(name, want, observed).clamp_min(1e-30))
        visible = float((difference > VISIBLE).double().mean())
        ok = relative <= limit and (visible <= MOST_VISIBLE or not name.startswith(PICTURES))
        yield Line(name, float(difference.max()), relative, visible, limit, ok)


def _scale(name: str, want: Tensor, observed: Observed) -> Tensor:
    """What a difference is relative to: the norm of the tensor.

    A loss is its outputs times normal numbers, a sum around 0 whose standard deviation is the norm of the outputs.
    """
    projected = LOSSES.get(name.removeprefix("loss"))
    if projected is None:
        return want.double().norm()
    return torch.cat([observed[part].flatten() for part in projected if part in observed]).double().norm()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m distill3d_eg3d.parity", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="+", type=Path, metavar="CASE.json")
    parser.add_argument("--reference", action="store_true", help="the published recipe literally, not the fast form")
    given = parser.parse_args(arguments)
    good = total = 0
    for path in given.cases:
        print(path.stem)
        try:
            case = load_case(path, reference=given.reference)
            lines = list(compare(case, observe(case)))
        except (Distill3dError, OSError, ValueError, KeyError) as error:
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
