"""Known GPUs and how fast a step may be on them: a prediction from data sheets, no measurement."""

from __future__ import annotations

from dataclasses import dataclass

UTILISATION = 0.35  # of the peak, assumed for convolutions and attention of these sizes
START = 8e-6  # seconds until a kernel is started from Python, assumed; what bounds small networks


@dataclass(frozen=True)
class Card:
    """A GPU as its vendor describes it; dense, without sparsity, accumulating in float32."""

    name: str
    memory: int  # GiB
    half: float  # TFLOP/s of bfloat16 by tensor cores
    single: float  # TFLOP/s of float32, without TF32
    source: str

    def steps_per_second(self, half_flops: float, single_flops: float, operations: int) -> float:
        """Expected of a step: of so many operations in half and in single precision, or only of starting its kernels.

        Args:
            operations: that the device is told to start.
        """
        computing = (half_flops / self.half + single_flops / self.single) / (UTILISATION * 1e12)
        return 1 / max(computing, operations * START)


AMPERE = "NVIDIA Ampere GA102 GPU Architecture whitepaper"
ADA = "NVIDIA Ada GPU Architecture whitepaper"
CARDS = (
    Card("RTX 3070", 8, 40.6, 20.3, AMPERE),
    Card("RTX 3060", 12, 25.5, 12.7, AMPERE + ", from 3584 cores at 1.78 GHz"),
    Card("RTX 3090", 24, 71.2, 35.6, AMPERE),
    Card("RTX 4060 Ti", 16, 44.1, 22.1, ADA + ", from 4352 cores at 2.54 GHz"),
    Card("RTX 4090", 24, 165.2, 82.6, ADA),
    Card("A100 40GB", 40, 312.0, 19.5, "NVIDIA A100 data sheet"),
    Card("L4", 24, 121.0, 30.3, "NVIDIA L4 data sheet (242 with sparsity)"),
    Card("H100 SXM", 80, 989.0, 66.9, "NVIDIA H100 data sheet (1979 with sparsity)"),
)
