"""Names on the Hub, and the token that goes with what is asked."""

from __future__ import annotations

import re

from distill3d.errors import HubError
from distill3d.packs.hub.errors import Asking, asking

MAIN = "main"  # the branch that is meant if none is said


def split_name(model: str) -> tuple[str, str | None]:
    """The id and the revision of "user/name@revision"; None where none is said.

    Raises:
        HubError: if it is no such name.
    """
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    repo_id, at, revision = model.partition("@")
    try:
        validate_repo_id(repo_id)
        well_formed = repo_id.count("/") == 1 and (not at or is_revision(revision))
    except HFValidationError:
        well_formed = False
    if not well_formed:
        raise HubError(f"{model[:100]!r} is no name on the Hub, which looks like user/name or user/name@revision.")
    return repo_id, revision or None


def is_revision(text: str) -> bool:
    """Whether git could have a branch, a tag or a commit of that name."""
    parts = text.split("/")
    plain = all(re.fullmatch(r"\w[\w.+-]*", part) and not part.endswith((".", ".lock")) for part in parts)
    return plain and ".." not in text and len(text) <= 200


def usable_token(token: str | bool | None) -> str | None:
    """The token that goes with what is asked: what is given, else what the client finds in the usual places.

    Raises:
        HubError: if it can be none; errors of the transport would show it.
    """
    from huggingface_hub import get_token

    if token is False:
        return None
    with asking(Asking("the token", "had")):
        found = token if isinstance(token, str) else get_token()
    if found and not re.fullmatch(r"[!-~]+", found):
        raise HubError("The token holds spaces, line ends or letters that no token has. Copy it again.")
    return found or None
