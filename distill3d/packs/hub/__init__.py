"""Style packs and the Hugging Face Hub, by huggingface_hub's own means."""

from distill3d.packs.hub.fetching import fetch
from distill3d.packs.hub.listing import Entry, list_packs
from distill3d.packs.hub.pushing import check_push, push

__all__ = ["Entry", "check_push", "fetch", "list_packs", "push"]
