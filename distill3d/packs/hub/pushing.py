"""Style packs to the Hub: everything is checked before anything is made or uploaded there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from distill3d import __version__
from distill3d.errors import HubError
from distill3d.packs.config import CARD, FILES, NEEDED
from distill3d.packs.hub.errors import SIGN_IN, Asking, asking, endpoint, failure
from distill3d.packs.hub.fetching import Told, quiet
from distill3d.packs.hub.names import MAIN, is_revision, split_name, usable_token

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelHubMixin
    from huggingface_hub.hf_api import ModelInfo

ATTRIBUTES = ".gitattributes"  # the Hub puts one into every new repository
ALL_OR_NOTHING = "A push is one commit: the Hub has all of it or nothing. Try the same again."


@dataclass(frozen=True)
class Destination:
    """Where a pack may be pushed to: asked and allowed.

    Args:
        exists: whether the repository is there already.
    """

    repo_id: str
    revision: str | None
    create_pr: bool
    private: bool
    exists: bool
    token: str = field(repr=False)

    @property
    def url(self) -> str:
        return f"{endpoint()}/{self.repo_id}"


def check_push(
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Destination:
    """Whether a pack can be pushed there; nothing is changed by asking.

    Args, Raises: see `push`.
    """
    _check_words(repo_id, revision, create_pr)
    token = usable_token(token)
    if token is None:
        raise HubError(f"There is no token to push {repo_id} with: {SIGN_IN}.")
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    info = _existing(api, repo_id, token)  # the first to be asked: it alone has a time limit
    with asking(Asking(repo_id, "pushed", token)):
        _check_account(api.whoami(), repo_id, create_pr)
        if info is not None:
            _check_repo(info, repo_id, private, create_pr)
            _check_revision(api, repo_id, revision)
    if info is None and create_pr:
        raise HubError(f"There is no {repo_id} on the Hub to propose a change of. Push without --create-pr.")
    return Destination(repo_id, revision, create_pr, private, info is not None, token)


def push(
    pack: ModelHubMixin,
    repo_id: str,
    *,
    private: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
    told: Told = quiet,
) -> str:
    """Upload a pack as one commit, in which files of an older pack that it lacks are deleted.

    Args:
        pack: a `distill3d.packs.pack.StylePack`.
        repo_id: "user/name"; the repository is made if there is none.
        private: make it private; one that is public already is refused.
        revision: the branch, which is made if there is none; None for "main".
        create_pr: propose the change to the owner instead.
        token: None for the one that the client finds in the usual places.
        told: what is done.
    Returns:
        The address of the commit or of the pull request.
    Raises:
        HubError: before anything is changed for a bad name, no token or none that may write, a name that something
            else has, a public repository with `private`; or for what breaks later.
    """
    from huggingface_hub import HfApi

    to = check_push(repo_id, private=private, revision=revision, create_pr=create_pr, token=token)
    afterwards = (
        ALL_OR_NOTHING if to.exists else f"{to.url} was made for it and may be empty still. Try the same again."
    )
    with asking(Asking(repo_id, "pushed", to.token, revision, "" if to.exists else ALL_OR_NOTHING)):
        _make(HfApi(token=to.token), to)
    with asking(Asking(repo_id, "pushed", to.token, revision, afterwards)), _told_if_stopped(afterwards, told):
        told(f"Uploading to {to.url}" + (f", branch {revision}." if revision else "."))
        made = pack.push_to_hub(
            repo_id,
            commit_message=f"Style pack, by distill3d {__version__}",
            private=to.private or None,
            token=to.token,
            branch=revision,
            create_pr=create_pr,
            allow_patterns=list(FILES),
            delete_patterns=list(FILES),  # of these only the ones that are not uploaded
        )
    return _address(made, create_pr, told)


@contextmanager
def _told_if_stopped(afterwards: str, told: Told) -> Iterator[None]:
    """Say what is left behind also to who stops it."""
    try:
        yield
    except KeyboardInterrupt:
        told(afterwards)
        raise


def _check_words(repo_id: str, revision: str | None, create_pr: bool) -> None:
    if "@" in repo_id or split_name(repo_id)[1]:
        raise HubError(f"{repo_id[:100]!r} is no name to push to: a branch is said with --revision.")
    if revision is not None and not is_revision(revision):
        raise HubError(f"No branch can be called {revision[:100]!r}.")
    if revision and create_pr:
        raise HubError("--create-pr proposes a change of the branch main: leave out --revision.")


def _existing(api: HfApi, repo_id: str, token: str) -> ModelInfo | None:
    """What the Hub knows of a repository, None if it has none that the token may read."""
    from huggingface_hub import constants
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        return api.model_info(repo_id, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except GatedRepoError as error:
        raise failure(error, Asking(repo_id, "pushed", token)) from error
    except RepositoryNotFoundError:
        return None
    except Exception as error:
        raise failure(error, Asking(repo_id, "pushed", token)) from error


def _check_account(who: Mapping[str, Any], repo_id: str, create_pr: bool) -> None:
    """The token may write at all, and its owner there."""
    auth = who.get("auth") or {}
    if (auth.get("accessToken") or {}).get("role") == "read":
        raise HubError(
            f"The token of {who['name']} may only read. Make one that may write at {endpoint()}/settings/tokens, "
            f"then {SIGN_IN}."
        )
    owner, mine = repo_id.split("/")[0], [who["name"], *(org["name"] for org in who.get("orgs") or ())]
    if not create_pr and owner.lower() not in (name.lower() for name in mine):
        raise HubError(
            f"You are signed in as {who['name']} and may not write to {owner}'s {repo_id}. Push to "
            f"{who['name']}/{repo_id.split('/')[1]}, or propose the pack to its owner with --create-pr."
        )


def _check_repo(info: ModelInfo, repo_id: str, private: bool, create_pr: bool) -> None:
    names = {file.rfilename for file in info.siblings or ()}
    is_empty = names <= {ATTRIBUTES, CARD}  # a card is there at once where a licence was chosen
    if not is_empty and not names.issuperset(NEEDED):
        raise HubError(
            f"The name {repo_id} is taken: it holds something else than a style pack, as {min(names - {ATTRIBUTES})}. "
            "Choose another name."
        )
    if private and not info.private:
        raise HubError(
            f"{repo_id} is public already, and --private would not hide it. Make it private first, at "
            f"{endpoint()}/{repo_id}/settings, or choose another name."
        )


def _check_revision(api: HfApi, repo_id: str, revision: str | None) -> None:
    if revision in (None, MAIN):
        return
    refs = api.list_repo_refs(repo_id, include_pull_requests=True)
    if revision in [tag.name for tag in refs.tags]:
        raise HubError(f"{revision} is a tag of {repo_id}, which stays what it is. Push to a branch.")
    if str(revision).startswith("refs/") and revision not in [pull.ref for pull in refs.pull_requests or ()]:
        raise HubError(f"{repo_id} has no pull request {revision}. Make one with --create-pr.")


def _make(api: HfApi, to: Destination) -> None:
    """The repository and the branch, where they are not there."""
    if not to.exists:
        api.create_repo(to.repo_id, private=to.private or None)
    if to.revision not in (None, MAIN) and not str(to.revision).startswith("refs/"):
        api.create_branch(to.repo_id, branch=str(to.revision), exist_ok=True)


def _address(made: str, create_pr: bool, told: Told) -> str:
    """Where the client says that the commit is, or the pull request."""
    pull = getattr(made, "pr_url", None)
    if create_pr and pull is None:
        told("Nothing is proposed: the Hub has exactly this already.")
    return str(pull or getattr(made, "commit_url", made))
