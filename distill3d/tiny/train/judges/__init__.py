"""The judges of the embedded world: identity, style, a second CLIP, depth.

`python -m distill3d.tiny.train judges --work DIR` trains one after the other from DIR/data/faces.safetensors, each
resumable after a kill, measures them on heads that no training saw, and writes DIR/judges.
"""

from distill3d.tiny.train.judges.chain import main

__all__ = ["main"]
