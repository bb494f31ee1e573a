"""What a check is, how it fails, and what a run of checks reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

Bench = TypeVar("Bench")


class ContractError(AssertionError):
    """A promise of the interface that is not kept: what is broken, what was expected, what was got."""


class NotApplicable(Exception):
    """Raised inside a check that this backbone or scorer gives no occasion for."""


@dataclass(frozen=True)
class Check:
    """One promise, and what became of it; a broken one is a ContractError instead."""

    promise: str
    outcome: Literal["kept", "skipped"]
    note: str = ""  # why it was skipped


@dataclass(frozen=True)
class Report:
    """Every promise that was looked at, in order."""

    name: str  # of the class that was checked
    checks: tuple[Check, ...]

    @property
    def skipped(self) -> tuple[Check, ...]:
        """Those that could not be checked here, with the reason in `note`."""
        return tuple(check for check in self.checks if check.outcome == "skipped")

    def __str__(self) -> str:
        lines = [f"{c.outcome:8}{c.promise}{f' ({c.note})' if c.note else ''}" for c in self.checks]
        return "\n".join([f"{self.name}: {len(self.checks)} checks, {len(self.skipped)} skipped", *lines])


def run_checks(name: str, checks: Iterable[Callable[[Bench], None]], bench: Bench) -> Report:
    """Call every check; the first line of its docstring is the promise.

    Raises:
        ContractError: at the first broken promise, or where the checked object raised something unforeseen.
    """
    done = []
    for check in checks:
        promise = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
        try:
            check(bench)
        except NotApplicable as reason:
            done.append(Check(promise, "skipped", str(reason)))
        except ContractError as error:
            raise ContractError(f"{name}: {error}") from error.__cause__
        except Exception as error:
            raise ContractError(
                f"{name}: checking that {promise[0].lower()}{promise[1:]}: expected no exception, "
                f"got {type(error).__name__}: {error}"
            ) from error
        else:
            done.append(Check(promise, "kept"))
    return Report(name, tuple(done))


def expect(holds: bool, what: str, expected: str, got: object) -> None:
    """Raise a ContractError in its one form unless it holds."""
    if not holds:
        raise ContractError(f"{what}: expected {expected}, got {got}.")


def expect_shape(what: str, tensor: object, shape: tuple[int, ...]) -> Tensor:
    """The tensor, if it is one of that shape."""
    if not isinstance(tensor, Tensor):
        raise ContractError(f"{what}: expected a tensor {shape}, got {type(tensor).__name__}.")
    expect(tuple(tensor.shape) == shape, what, f"shape {shape}", tuple(tensor.shape))
    return tensor


def expect_finite(what: str, tensor: Tensor) -> None:
    """No NaN, no infinity."""
    broken = int((~tensor.isfinite()).sum())
    expect(broken == 0, what, "finite numbers", f"{broken} of {tensor.numel()} that are not")


def expect_same(what: str, got: Tensor, expected: Tensor, tolerance: float, meaning: str = "equal values") -> None:
    """Equal shapes, and a difference whose RMS is at most `tolerance` of the expected values' RMS."""
    expect_shape(what, got, tuple(expected.shape))
    far = difference(got, expected)
    wanted = f"{meaning} (relative tolerance {tolerance:g})"
    expect(far <= tolerance, what, wanted, f"a relative difference of {far:.2g}")


def difference(a: Tensor, b: Tensor) -> float:
    """RMS of a - b divided by the RMS of b; infinite if either is not finite."""
    if a.numel() == 0:
        return 0.0
    far = rms(a.double() - b.double()) / max(rms(b.double()), 1e-12)
    return far if far == far else float("inf")


def rms(x: Tensor) -> float:
    """Root of the mean square."""
    return float(x.square().mean().sqrt())


def computing_dtype(module: nn.Module) -> torch.dtype:
    """Of the first floating parameter or buffer; float32 if there is none."""
    tensors = [*module.parameters(), *module.buffers()]
    return next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)


def outer_dtype(module: nn.Module) -> torch.dtype:
    """What pictures go in and come out as: float32, or float64 for a module in double precision."""
    return torch.float64 if computing_dtype(module) == torch.float64 else torch.float32


def default_tolerance(module: nn.Module) -> float:
    """How far results may differ that only batching separates."""
    # float32: a renderer that places fine samples by a coarse pass may move a few of them on a last bit
    return {torch.float64: 1e-8, torch.float32: 1e-3}.get(computing_dtype(module), 3e-2)
