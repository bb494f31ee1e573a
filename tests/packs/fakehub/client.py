"""The genuine client pointed at a stand-in Hub: in this process, where it may be imported already, or in a child."""

import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE")


def point_at(url: str, home: Path, patch: pytest.MonkeyPatch) -> None:
    """As if HF_ENDPOINT and HF_HOME had been set before huggingface_hub was imported, and nobody were signed in."""
    from huggingface_hub import file_download, hf_api
    from huggingface_hub.utils import _http

    settings = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": str(home),
        "HF_HUB_CACHE": str(home / "hub"),
        "HUGGINGFACE_HUB_CACHE": str(home / "hub"),
        "HF_TOKEN_PATH": str(home / "token"),
        "HF_STORED_TOKENS_PATH": str(home / "stored_tokens"),
        "AGENT_HARNESSES_PATH": str(home / ".agent_harnesses.json"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": False,
    }
    modules = [module for name, module in sys.modules.items() if name.split(".")[0] == "huggingface_hub"]
    for name, value in settings.items():
        for module in modules:  # older versions have copies
            if name in vars(module):
                patch.setattr(module, name, value)
    patch.setattr(hf_api.api, "endpoint", url)  # whose methods are the module's functions
    for name in TOKENS:
        patch.delenv(name, raising=False)
    impatient = SimpleNamespace(**{**vars(time), "sleep": lambda seconds: None})
    for module in (_http, file_download):  # between one attempt and the next
        patch.setattr(module, "time", impatient, raising=False)


def environment(url: str, home: Path, token: str | None = None) -> dict[str, str]:
    """The same for a child process: what somebody with a mirror sets, and nothing else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    return {**kept, "HF_ENDPOINT": url, "HF_HOME": str(home), **({"HF_TOKEN": token} if token else {})}
