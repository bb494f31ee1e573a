"""Files of repositories, sent: small ones from git, large ones from the store that the answer leads to."""

from __future__ import annotations

import re

from tests.packs.fakehub.routes import Answer, Refusal, Request, commit_at, route
from tests.packs.fakehub.store import git_oid, sha256

STORED = "application/octet-stream"


@route("GET HEAD", "/(?:(datasets|spaces)/)?([^/]+/[^/]+)/(?:resolve|raw)/([^/]+)/(.+)")
def resolve(request: Request, kind: str, repo_id: str, revision: str, name: str) -> Answer:
    repo = request.repo(kind, repo_id)
    if not repo.lets_read(request.account):
        status = 401 if request.account is None else 403
        raise Refusal(status, f"Access to {repo.kind} {repo_id} is restricted", "GatedRepo")
    commit = commit_at(repo, revision)
    if name not in commit.files:
        raise Refusal(404, "Entry not found", "EntryNotFound")
    data = commit.files[name]
    headers = {"X-Repo-Commit": commit.oid, "ETag": f'"{git_oid(data)}"', "Content-Type": STORED}
    if name not in commit.large:
        return part(data, request.range, headers)
    linked = {"X-Linked-Etag": f'"{sha256(data)}"', "X-Linked-Size": str(len(data))}
    return Answer(b"", 302, {**headers, **linked, "Location": f"{request.hub.store_url}/{sha256(data)}"})


@route("GET", "/_lfs/([0-9a-f]{64})")
def send_large(request: Request, oid: str) -> Answer:
    if oid not in request.hub.blobs:
        raise Refusal(404, "no such object")
    return part(request.hub.blobs[oid], request.range, {"ETag": f'"{oid}"', "Content-Type": STORED})


@route("PUT", "/_lfs/([0-9a-f]{64})")
def take_large(request: Request, oid: str) -> Answer:
    if sha256(request.body) != oid:
        raise Refusal(400, "the checksum is another")
    request.hub.blobs[oid] = request.body
    return Answer()


def part(data: bytes, wanted: str | None, headers: dict[str, str]) -> Answer:
    """All of the data, or the part that a Range asks for."""
    headers = {**headers, "Accept-Ranges": "bytes"}
    asked = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted or "")
    if asked is None:
        return Answer(data, 200, headers)
    first, last = int(asked[1]), min(int(asked[2] or len(data)), len(data) - 1)
    if first >= len(data):
        return Answer(b"", 416, {"Content-Range": f"bytes */{len(data)}"})
    return Answer(data[first : last + 1], 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"})
