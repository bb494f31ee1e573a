"""A stand-in for the Hugging Face Hub: a real HTTP server, all in memory, that the genuine client talks to.

What it leaves out: the Xet store (clients need HF_HUB_DISABLE_XET=1, or a Hub without a large-file store),
discussions, git itself.
"""

from tests.packs.fakehub import commits, files, repos  # noqa: F401  they answer
from tests.packs.fakehub.cards import validate_card
from tests.packs.fakehub.server import Hub
from tests.packs.fakehub.store import Account, Repo

__all__ = ["Account", "Hub", "Repo", "validate_card"]
