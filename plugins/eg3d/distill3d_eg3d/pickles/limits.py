"""How much a pickle may ask for. Real checkpoints stay far below: about 20,000 opcodes and 4,000 memo entries."""

from __future__ import annotations

from dataclasses import dataclass

from distill3d_eg3d.pickles.errors import PickleError

KIB, MIB, GIB = 2**10, 2**20, 2**30


@dataclass(frozen=True)
class Limits:
    """Caps of the interpreter; the defaults let any released checkpoint through and bound time and memory."""

    file_bytes: int = 8 * GIB
    opcodes: int = 500_000  # and items copied by a call, so that no short file can multiply its content
    memo_index: int = 500_000
    stack: int = 100_000  # values waiting at once, marks included
    text_bytes: int = 48 * MIB  # one text: protocol 2 writes the bytes of a weight as text
    kept_bytes: int = 16 * MIB  # all short texts and bytes together; longer ones stay in the file
    nesting: int = 32  # of modules in modules, and of options in options
    values: int = 50_000  # options, modules and tensors walked in the generator


STORAGE_LIMITS = Limits(
    opcodes=1_000, memo_index=1_000, stack=100, text_bytes=4 * KIB, kept_bytes=16 * KIB
)  # each of the small pickles in front of the bytes of a storage


class Budget:
    """A number that can only be spent; what it cannot pay for is refused."""

    def __init__(self, amount: int, what: str):
        self.left = amount
        self.what = what

    def spend(self, amount: int = 1) -> None:
        """Take `amount` off.

        Raises:
            PickleError: when there is less left.
        """
        self.left -= amount
        if self.left < 0:
            raise PickleError(
                f"it asks for more {self.what} than any checkpoint needs. It is damaged or made to harm; "
                "get the file from its publisher."
            )
