"""Repositories: made, described, listed; their branches, tags and commits."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qs

from tests.packs.fakehub.cards import front_matter
from tests.packs.fakehub.routes import KINDS, REPO, Answer, Refusal, Request, commit_at, route
from tests.packs.fakehub.store import Commit, Repo, git_oid, is_revision_name, sha256

FOLDERS = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@route("GET", "/api/whoami-v2")
def whoami(request: Request) -> Answer:
    if request.account is None:
        raise Refusal(401, "Invalid username or password.")
    token = {"type": "access_token", "accessToken": {"displayName": "tests", "role": request.account.role}}
    orgs = [{"type": "org", "name": name, "roleInOrg": "write"} for name in request.account.orgs]
    return Answer({"type": "user", "name": request.account.name, "auth": token, "orgs": orgs})


@route("POST", "/api/repos/create")
def create(request: Request) -> Answer:
    asked, account = request.json(), request.writer()
    repo = Repo(f"{asked.get('organization') or account.name}/{asked['name']}", asked.get("type") or "model")
    if not account.owns(repo.id):
        raise Refusal(403, f"You don't have the rights to create a {repo.kind} under that namespace")
    url = f"{request.hub.url}/{FOLDERS[repo.kind]}{repo.id}"
    if (repo.kind, repo.id) in request.hub.repos:
        return Answer({"error": f"You already created this {repo.kind} repo", "url": url}, 409)
    repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    request.hub.repos[repo.kind, repo.id] = repo
    return Answer({"url": url, "id": repo.id})


@route("DELETE", "/api/repos/delete")
def delete(request: Request) -> Answer:
    asked, account = request.json(), request.writer()
    kind = asked.get("type") or "model"
    repo = request.own_repo(f"{kind}s", f"{asked.get('organization') or account.name}/{asked['name']}")
    del request.hub.repos[kind, repo.id]
    return Answer({})


@route("PUT", f"{REPO}/settings")
def settings(request: Request, kind: str, repo_id: str) -> Answer:
    repo, asked = request.own_repo(kind, repo_id), request.json()
    repo.private = asked.get("visibility", "private" if asked.get("private") else "public") == "private"
    if "gated" in asked:
        repo.gated = bool(asked["gated"])
    return Answer({})


@route("GET", f"{REPO}(?:/revision/([^/]+))?")
def info(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo = request.repo(kind, repo_id)
    commit = commit_at(repo, revision or "main")
    files = [sibling(repo, commit, name, request.is_true("blobs")) for name in sorted(commit.files)]
    return Answer({**description(repo), "tags": tags_of(commit), "sha": commit.oid, "siblings": files})


@route("GET", "/api/(models|datasets|spaces)")
def listing(request: Request, kind: str) -> Answer:
    """What is asked for with `expand` and nothing else, as the Hub does it; page by page."""
    found = [repo for repo in request.hub.repos.values() if repo.kind == KINDS[kind] and is_wanted(repo, request)]
    start, stop = int(request.one("cursor", "0")), int(request.one("limit", "1000000"))
    end = min(start + request.hub.page, stop)
    names = {"likes", "downloads", "private", "tags", "pipeline_tag", "library_name", "createdAt"}
    names = set(request.query.get("expand", ())) or (names | {"lastModified"} if request.is_true("full") else names)
    entries = [{k: v for k, v in entry_of_list(repo).items() if k in names | {"_id", "id"}} for repo in found]
    link = ""
    if end < min(len(found), stop):
        rest = "".join(f"&{name}={value}" for name, values in request.query.items() for value in values)
        link = f'<{request.hub.url}/api/{kind}?cursor={end}{rest.replace(f"&cursor={start}", "")}>; rel="next"'
    return Answer(entries[start:end], headers={"Link": link} if link else {})


def is_wanted(repo: Repo, request: Request) -> bool:
    """Whether a repository is one of those that a list was asked for."""
    mine = request.account is not None and request.account.owns(repo.id)
    return (
        (mine or not repo.private)
        and request.one("author", repo.id.split("/")[0]) == repo.id.split("/")[0]
        and request.one("search").lower() in repo.id.lower()
        and set(request.query.get("filter", ())) <= set(tags_of(repo.commits[repo.branches["main"]]))
    )


def entry_of_list(repo: Repo) -> dict[str, Any]:
    commit = repo.commits[repo.branches["main"]]
    card = card_of(commit)
    of_card = {name: card[name] for name in ("pipeline_tag", "library_name") if name in card}
    return {**description(repo), **of_card, "tags": tags_of(commit), "lastModified": as_date(commit.when)}


def description(repo: Repo) -> dict[str, Any]:
    """What is said of a repository wherever it is spoken of."""
    return {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "author": repo.id.split("/")[0],
        "private": repo.private,
        "gated": "auto" if repo.gated else False,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "createdAt": as_date(min(commit.when for commit in repo.commits.values())),
    }


def card_of(commit: Commit) -> dict[str, Any]:
    try:
        return front_matter(commit.files.get("README.md", b"").decode("utf-8", "replace")) or {}
    except ValueError:
        return {}


def tags_of(commit: Commit) -> list[str]:
    """The card's own, and those that the Hub makes of other fields."""
    card = card_of(commit)
    bases = card.get("base_model") or []
    made = [card.get("library_name"), card.get("pipeline_tag"), card.get("license") and f"license:{card['license']}"]
    made += [f"base_model:{base}" for base in (bases if isinstance(bases, list) else [bases])]
    return list(dict.fromkeys([*(card.get("tags") or []), *filter(None, made), "region:us"]))


def sibling(repo: Repo, commit: Commit, name: str, with_sizes: bool) -> dict[str, Any]:
    """A file as a repository's description has it."""
    if not with_sizes:
        return {"rfilename": name}
    data = commit.files[name]
    size = repo.claims.get(name, len(data))
    entry = {"rfilename": name, "blobId": git_oid(data), **({} if size is None else {"size": size})}
    large = {"sha256": sha256(data), "size": size, "pointerSize": 134}
    return {**entry, "lfs": large} if name in commit.large and size is not None else entry


def tree_entry(commit: Commit, name: str) -> dict[str, Any]:
    """A file as a list of files has it."""
    data = commit.files[name]
    entry = {"type": "file", "path": name, "size": len(data), "oid": git_oid(data)}
    return entry | (
        {"lfs": {"oid": sha256(data), "size": len(data), "pointerSize": 134}} if name in commit.large else {}
    )


@route("GET", f"{REPO}/tree/([^/]+)(?:/(.*))?")
def tree(request: Request, kind: str, repo_id: str, revision: str, folder: str) -> Answer:
    commit = commit_at(request.repo(kind, repo_id), revision)
    inside = f"{folder.strip('/')}/" if folder.strip("/") else ""
    names = [name for name in sorted(commit.files) if name.startswith(inside)]
    depth = None if request.is_true("recursive") else inside.count("/") + 1
    folders = sorted({up for name in names for up in folders_above(name) if up.startswith(inside)})
    made = [{"type": "directory", "path": up, "oid": git_oid(up.encode()), "size": 0} for up in folders]
    made += [tree_entry(commit, name) for name in names]
    return Answer([entry for entry in made if depth is None or entry["path"].count("/") < depth])


def folders_above(name: str) -> Iterable[str]:
    parts = name.split("/")[:-1]
    return ("/".join(parts[: i + 1]) for i in range(len(parts)))


@route("POST", f"{REPO}/paths-info/([^/]+)")
def paths_info(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    commit = commit_at(request.repo(kind, repo_id), revision)
    as_json = request.body.startswith(b"{")  # versions of the client differ
    wanted = request.json()["paths"] if as_json else parse_qs(request.body.decode()).get("paths", [])
    return Answer([tree_entry(commit, name) for name in wanted if name in commit.files])


@route("GET", f"{REPO}/refs")
def refs(request: Request, kind: str, repo_id: str) -> Answer:
    repo = request.repo(kind, repo_id)
    told = lambda refs, above: [{"name": n, "ref": above + n, "targetCommit": o} for n, o in refs.items()]  # noqa: E731
    pulls = told(repo.pulls, "") if request.is_true("include_prs") else []
    answer = {"branches": told(repo.branches, "refs/heads/"), "tags": told(repo.tags, "refs/tags/"), "converts": []}
    return Answer({**answer, "pullRequests": pulls})


@route("GET", f"{REPO}/commits/([^/]+)")
def commits(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo = request.repo(kind, repo_id)
    told, commit = [], repo.at(revision)
    while commit is not None:
        entry = {"id": commit.oid, "title": commit.message, "message": "", "date": as_date(commit.when)}
        told.append({**entry, "authors": [{"user": repo.id.split("/")[0]}]})
        commit = repo.commits.get(commit.parent or "")
    return Answer(told)


@route("POST", f"{REPO}/branch/([^/]+)")
def make_branch(request: Request, kind: str, repo_id: str, name: str) -> Answer:
    repo = request.own_repo(kind, repo_id)
    if not is_revision_name(name):
        raise Refusal(400, f"Invalid reference for a branch: {name}")
    if name in repo.branches:
        raise Refusal(409, "Reference already exists")
    repo.branches[name] = commit_at(repo, request.json().get("startingPoint", "main")).oid
    return Answer({})


@route("POST", f"{REPO}/tag/([^/]+)")
def make_tag(request: Request, kind: str, repo_id: str, revision: str) -> Answer:
    repo, name = request.own_repo(kind, repo_id), request.json()["tag"]
    if name in repo.tags:
        raise Refusal(409, "Tag reference exists already")
    repo.tags[name] = commit_at(repo, revision).oid
    return Answer({})


@route("DELETE", f"{REPO}/(branch|tag)/([^/]+)")
def drop_ref(request: Request, kind: str, repo_id: str, what: str, name: str) -> Answer:
    repo = request.own_repo(kind, repo_id)
    (repo.branches if what == "branch" else repo.tags).pop(name, None)
    return Answer({})


def as_date(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
