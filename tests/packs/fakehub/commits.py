"""Files of repositories, taken: the card checked, large files first, then one commit or one pull request."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any

from tests.packs.fakehub.cards import validate_card, warnings_of_card
from tests.packs.fakehub.routes import REPO, Answer, Refusal, Request, commit_at, route
from tests.packs.fakehub.store import Repo, git_oid, sha256


@route("POST", "/api/validate-yaml")
def validate(request: Request) -> Answer:
    text = request.json()["content"]
    told = lambda sentences: [{"message": sentence} for sentence in sentences]  # noqa: E731
    errors = validate_card(text)
    return Answer({"errors": told(errors), "warnings": told(warnings_of_card(text))}, 400 if errors else 200)


def changing(request: Request, kind: str, repo_id: str) -> Repo:
    """A repository that whoever asks may change, or propose a change of."""
    if not request.is_true("create_pr"):
        return request.own_repo(kind, repo_id)
    request.writer()
    return request.repo(kind, repo_id)


@route("POST", f"{REPO}/preupload/([^/]+)")
def preupload(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    """Which files go to the large-file store, and what lies in their places already."""
    there = commit_at(changing(request, kind, repo_id), revision)

    def told(name: str) -> dict[str, Any]:
        mode = "lfs" if name.endswith(request.hub.large) else "regular"
        oid = (sha256 if name in there.large else git_oid)(there.files[name]) if name in there.files else None
        return {"path": name, "shouldIgnore": False, "oid": oid, "uploadMode": mode}

    return Answer({"files": [told(file["path"]) for file in request.json()["files"]]})


@route("POST", r"/(?:(datasets|spaces)/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")
def batch(request: Request, kind: str, repo_id: str) -> Answer:
    """Where large files are put that the store has not; anybody may who could propose a change."""
    request.repo(kind, repo_id)
    request.writer()
    objects = [{"oid": wanted["oid"], "size": wanted["size"]} for wanted in request.json()["objects"]]
    for wanted in objects:
        if wanted["oid"] not in request.hub.blobs:
            wanted["actions"] = {"upload": {"href": f"{request.hub.store_url}/{wanted['oid']}"}}
    headers = {"Content-Type": "application/vnd.git-lfs+json"}
    return Answer({"transfer": "basic", "objects": objects}, headers=headers)


@route("POST", f"{REPO}/commit/([^/]+)")
def commit(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo = changing(request, kind, repo_id)
    before = commit_at(repo, revision)
    if revision not in repo.branches and revision not in repo.pulls:
        raise Refusal(400, "can only commit to a branch")
    head, *changes = [json.loads(line) for line in request.body.splitlines() if line.strip()]
    if head["value"].get("parentCommit") not in (None, before.oid):
        raise Refusal(412, "A commit has happened since. Please refresh and try again.")
    files, large = dict(before.files), set(before.large)
    apply(changes, files, large, request.hub.blobs)
    return propose(request, repo, revision, head["value"]["summary"], files, large)


def propose(
    request: Request, repo: Repo, revision: str, message: str, files: Mapping[str, bytes], large: Iterable[str]
) -> Answer:
    """Commit to the branch, or to a new pull request."""
    pull = {}
    if request.is_true("create_pr"):
        number = len(repo.pulls) + 1
        revision = f"refs/pr/{number}"
        url = f"{request.hub.url}/{repo.id}/discussions/{number}"
        pull = {"pullRequestUrl": url, "pullRequestNum": number}
    made = repo.add(revision, files, large, message)
    url = f"{request.hub.url}/{repo.id}/commit/{made.oid}"
    return Answer({"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": "", **pull})


def apply(changes: Iterable[Any], files: dict[str, bytes], large: set[str], blobs: Mapping[str, bytes]) -> None:
    """Change the files of a commit in place."""
    for change in changes:
        value, name = change["value"], change["value"]["path"]
        if change["key"] == "file":
            files[name] = base64.b64decode(value["content"])
            large.discard(name)
        elif change["key"] == "lfsFile":
            if value["oid"] not in blobs:
                raise Refusal(400, f"LFS object {value['oid']} is missing")
            files[name] = blobs[value["oid"]]
            large.add(name)
        elif change["key"] == "deletedFile":
            if files.pop(name, None) is None:
                raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
        elif change["key"] == "deletedFolder":
            for inside in [file for file in files if file.startswith(f"{name.rstrip('/')}/")]:
                del files[inside]
