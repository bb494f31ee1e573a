"""A small latent diffusion model of the embedded world, in diffusers' own format.

`python -m distill3d.tiny.train diffusion --work DIR` trains its parts one after the other from DIR/data, each resumable
after a kill, and packs them: autoencoder, CLIP (whose text half conditions the denoiser), denoiser, depth ControlNet.
"""

from distill3d.tiny.train.diffusion.chain import main

__all__ = ["main"]
