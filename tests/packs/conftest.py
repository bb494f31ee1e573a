"""The stand-in Hub for every test of packs."""

from tests.packs.fakehub.fixtures import hub, hub_server

__all__ = ["hub", "hub_server"]
