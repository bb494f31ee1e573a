"""A stand-in for the Hugging Face Hub: a real HTTP server that the genuine client talks to."""

from tests.packs.fakehub.cards import validate_card

__all__ = ["validate_card"]
