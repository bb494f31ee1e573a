"""Low-rank changes of a transformer's weights (LoRA, Hu et al., ICLR 2022, arXiv:2106.09685), by peft."""

from __future__ import annotations

import warnings

import torch

from distill3d_lrm.model import ReconstructionModel

RANK = 16
MARK = ".lora_"  # in the names of what peft adds


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
