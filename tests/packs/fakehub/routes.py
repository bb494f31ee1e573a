"""What the stand-in Hub is asked, what it answers, and which function answers what."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from tests.packs.fakehub.store import Account, Commit, Repo

if TYPE_CHECKING:
    from tests.packs.fakehub.server import Hub

KINDS = {"": "model", "models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True)
class Answer:
    """Bytes, or what is sent as JSON."""

    data: Any = b""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """A status, what it says, and the Hub's own word for it, by which the client knows what is meant."""

    def __init__(self, status: int, text: str, code: str | None = None):
        self.status, self.text, self.code = status, text, code

    def answer(self) -> Answer:
        headers = {"X-Error-Message": self.text, **({"X-Error-Code": self.code} if self.code else {})}
        return Answer({"error": self.text}, self.status, headers)


@dataclass(frozen=True)
class Request:
    """What is asked, by whom."""

    hub: Hub
    account: Account | None
    query: Mapping[str, list[str]]
    body: bytes
    range: str | None

    def json(self) -> dict[str, Any]:
        return json.loads(self.body or b"{}")

    def one(self, name: str, default: str = "") -> str:
        """A parameter of the address."""
        return self.query.get(name, [default])[0]

    def is_true(self, name: str) -> bool:
        return self.one(name).lower() in ("true", "1")

    def writer(self) -> Account:
        """Whoever asks, with a token that may change something."""
        if self.account is None:
            raise Refusal(401, "Unauthorized")
        if self.account.role != "write":
            raise Refusal(403, "You must use a write token to do that")
        return self.account

    def repo(self, kind: str, repo_id: str) -> Repo:
        """A repository that whoever asks may know of; the kind as addresses call it: "models", or "" before a file."""
        repo = self.hub.repos.get((KINDS[kind], repo_id))
        if repo is None or not repo.is_visible_to(self.account):
            if self.account is None:
                raise Refusal(401, "Invalid username or password.", "RepoNotFound")
            raise Refusal(404, "Repository not found", "RepoNotFound")
        return repo

    def own_repo(self, kind: str, repo_id: str) -> Repo:
        """A repository that whoever asks may change."""
        repo = self.repo(kind, repo_id)
        if not self.writer().owns(repo_id):
            raise Refusal(403, "You don't have the required permissions to perform this action")
        return repo


def commit_at(repo: Repo, revision: str) -> Commit:
    commit = repo.at(unquote(revision))
    if commit is None:
        raise Refusal(404, f"Invalid rev id: {unquote(revision)}", "RevisionNotFound")
    return commit


Endpoint = Callable[..., Answer]
_routes: list[tuple[str, re.Pattern[str], Endpoint]] = []

REPO = r"/api/(models|datasets|spaces)/([^/]+/[^/]+)"


def route(methods: str, path: str) -> Callable[[Endpoint], Endpoint]:
    """Answer these methods of addresses that the whole expression fits; its groups become arguments."""

    def register(endpoint: Endpoint) -> Endpoint:
        _routes.extend((method, re.compile(path), endpoint) for method in methods.split())
        return endpoint

    return register


def find_route(method: str, path: str) -> tuple[Endpoint, list[str]]:
    """The address is still quoted: a revision may hold slashes.

    Raises:
        Refusal: if nothing answers that.
    """
    for wanted, pattern, endpoint in _routes:
        if wanted == method and (found := pattern.fullmatch(path)):
            return endpoint, [unquote(word or "") for word in found.groups()]
    raise Refusal(404, f"no route {method} {path}")
