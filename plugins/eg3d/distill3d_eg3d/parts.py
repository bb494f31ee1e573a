"""Which parameters shape a subject, and which colour it."""

from __future__ import annotations

import re

from distill3d.renderer import StylePart

FINE = 64  # cells: from here on a block's styles are "fine"
BLOCK = re.compile(r"backbone\.synthesis\.b(\d+)\.")
TEXTURE = ("superresolution.", "decoder.net.2.", "torgb.", "bcg_synthesis.")


def part_of(name: str) -> StylePart:
    """By a parameter's official name: fine blocks of the planes, the decoder's last layer, and all behind it colour.

    A convention. That StyleGAN's blocks from 64 pixels up make colours and small structure, and those below pose and
    shape, is known of pictures (Karras et al., CVPR 2019, arXiv:1812.04948; networks mixed by it: Pinkney and Adler,
    2020, arXiv:2010.05334). It was not measured on published weights of EG3D, whose planes hold density too: fine
    blocks shape what is small. The decoder's last layer was measured on the embedded generator alone, see
    `distill3d.tiny.generator.TinyTriplane.part_of`; and of that, late layers of the planes were no texture.
    """
    block = BLOCK.match(name)
    fine = block is not None and int(block[1]) >= FINE
    return "texture" if fine or name.startswith(TEXTURE) else "geometry"
