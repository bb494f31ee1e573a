"""What the stand-in Hub holds: accounts, repositories, their commits and everything that points at one."""

from __future__ import annotations

import hashlib
import itertools
import re
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

ATTRIBUTES = ".gitattributes"  # the Hub puts one into every new repository
_numbers = itertools.count(1)


@dataclass(frozen=True)
class Account:
    """Whoever holds a token."""

    name: str
    role: str = "write"  # of the token: "read" or "write"
    orgs: tuple[str, ...] = ()

    def owns(self, repo_id: str) -> bool:
        return repo_id.split("/")[0] in (self.name, *self.orgs)


@dataclass(frozen=True)
class Commit:
    """A state of all files; never changes."""

    oid: str
    files: Mapping[str, bytes]
    large: frozenset[str]  # the names of those that lie in the large-file store
    message: str
    parent: str | None
    when: float = field(default_factory=time.time)


@dataclass
class Repo:
    """A repository. `claims` are sizes that it tells of files instead of the true ones; None tells none."""

    id: str
    kind: str = "model"
    private: bool = False
    gated: bool = False
    granted: set[str] = field(default_factory=set)  # who may read it although it is gated
    commits: dict[str, Commit] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    pulls: dict[str, str] = field(default_factory=dict)  # refs/pr/N to its last commit
    claims: dict[str, int | None] = field(default_factory=dict)
    downloads: int = 0
    likes: int = 0

    def __post_init__(self) -> None:
        self.add("main", {ATTRIBUTES: b"*.safetensors filter=lfs\n"}, (), "initial commit")

    def at(self, revision: str) -> Commit | None:
        """What a branch, a tag, a pull request or a commit's number stands for."""
        oid = next((refs[revision] for refs in (self.branches, self.tags, self.pulls) if revision in refs), revision)
        return self.commits.get(oid)

    def add(self, ref: str, files: Mapping[str, bytes], large: Iterable[str], message: str) -> Commit:
        """A new commit, which the branch or the pull request then points at."""
        refs = self.pulls if ref.startswith("refs/pr/") else self.branches
        oid = hashlib.sha1(f"{self.id} {ref} {next(_numbers)}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, dict(files), frozenset(large) & set(files), message, refs.get(ref))
        refs[ref] = oid
        return self.commits[oid]

    def merge(self, pull: str) -> None:
        """Accept a pull request."""
        self.branches["main"] = self.pulls[pull]

    def is_visible_to(self, account: Account | None) -> bool:
        return not self.private or (account is not None and account.owns(self.id))

    def lets_read(self, account: Account | None) -> bool:
        """Its files, not only their names."""
        return not self.gated or (account is not None and (account.owns(self.id) or account.name in self.granted))


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def is_revision_name(text: str) -> bool:
    """What git takes as the name of a branch or a tag, outside of refs/."""
    return re.fullmatch(r"[\w.-]+(/[\w.-]+)*", text) is not None and ".." not in text and not text.startswith("refs/")
