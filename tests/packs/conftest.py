"""The stand-in Hub for every test of packs, and a pack on it."""

import pytest

from distill3d.packs.hub import push
from tests.packs.fakehub.fixtures import hub, hub_server
from tests.packs.small_pack import files_of, small_pack

__all__ = ["hub", "hub_server"]


@pytest.fixture
def pack(tmp_path):
    return small_pack(tmp_path / "pack")


@pytest.fixture
def published(hub, pack):
    """The files of a public pack, somebody/zombies."""
    push(pack, pack.name, token="hf_owner")
    hub.asked.clear()
    return files_of(pack.folder)
