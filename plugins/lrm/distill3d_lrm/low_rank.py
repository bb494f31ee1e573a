"""Low-rank changes of a transformer's weights (LoRA, Hu et al., ICLR 2022, arXiv:2106.09685), by peft."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping
from itertools import chain

import torch
from torch import Tensor

from distill3d.state_dicts import check_state_dict
from distill3d_lrm.model import ReconstructionModel

RANK = 16
MARK = ".lora_"  # in the names of what peft adds
WRAPPED = ".base_layer"  # what peft puts into the names of what it changes
ADAPTER = "default"  # as peft calls ours


def add_low_rank(model: ReconstructionModel, rank: int = RANK) -> None:
    """Put changes of that rank, nothing at first bit for bit, at attention and feed-forward of every block.

    What is drawn for them is the same in every process. A second call does nothing.
    """
    if any(MARK in name for name, _ in model.named_parameters()):
        return
    from peft import LoraConfig, inject_adapter_in_model  # a second to import

    names = [name for name, _ in model.named_modules() if name.startswith(model.parts.blocks)]
    weights = [name for name, _ in model.named_parameters() if name.startswith(model.parts.blocks)]
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=[name for name in names if name.endswith(model.parts.low_rank_modules)],
        target_parameters=[name for name in weights if name.endswith(model.parts.low_rank_parameters)] or None,
    )
    with torch.random.fork_rng([]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that target_parameters are young
        torch.default_generator.manual_seed(0)  # torch.manual_seed would seed GPUs too, for good
        inject_adapter_in_model(config, model)


def low_rank_names(model: ReconstructionModel) -> list[str]:
    """The parameters that `add_low_rank` added."""
    return [name for name, _ in model.named_parameters() if MARK in name]


def pristine(name: str) -> str:
    """The name that a parameter had before changes were put in."""
    return name.replace(WRAPPED, "")


@torch.no_grad()
def folded(model: ReconstructionModel, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """See `Folding.folded`: weights plus what their factors make; names are the model's own.

    Raises:
        WeightsError: if there are factors, but not exactly those that `add_low_rank` adds.
    """
    found = {pristine(name): value for name, value in tensors.items() if MARK not in name}
    factors = {name: value for name, value in tensors.items() if MARK in name}
    if not factors:
        return found
    from peft.tuners.lora import LoraLayer

    changed = _with_factors(model, factors)
    for name, layer in changed.named_modules():
        if isinstance(layer, LoraLayer):
            parameter = getattr(layer, "parameter_name", "weight")  # whose weights have names of their own say so
            weight = getattr(layer.get_base_layer(), parameter)
            name = f"{pristine(name)}.{parameter}"
            found[name] = found.get(name, weight.detach()) + layer.get_delta_weight(ADAPTER)  # type: ignore[attr-defined]
    return found


def _with_factors(model: ReconstructionModel, factors: Mapping[str, Tensor]) -> ReconstructionModel:
    """A copy with these changes that shares all else: which factors make which weight is peft's affair."""
    shared = chain(model.named_parameters(), model.named_buffers())
    changed = copy.deepcopy(model, {id(value): value for name, value in shared if MARK not in name})
    add_low_rank(changed)
    own = {name: parameter for name, parameter in changed.named_parameters() if MARK in name}
    check_state_dict(own, factors, "What was trained")
    for name, parameter in own.items():
        parameter.copy_(factors[name])
    return changed
