"""One server for all tests; each finds it empty, and the client pointed at it with an empty cache and no token."""

import pytest

from tests.packs.fakehub.client import point_at
from tests.packs.fakehub.server import Hub


@pytest.fixture(scope="session")
def hub_server():
    server = Hub()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def hub(hub_server, tmp_path, monkeypatch):
    hub_server.clear()
    point_at(hub_server.url, tmp_path / "hf", monkeypatch)
    return hub_server
