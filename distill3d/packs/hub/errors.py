"""Whatever goes wrong while the Hub is asked, as one sentence that holds no token."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from distill3d.errors import Distill3dError, HubError

SIGN_IN = "run `hf auth login` or set HF_TOKEN"
AGAIN_LATER = (408, 425, 429, 500, 502, 503, 504)  # answers that say nothing of what was asked


@dataclass(frozen=True)
class Asking:
    """What the Hub is asked for.

    Args:
        repo_id: "user/name"; "" for lists.
        doing: what it is asked for, as "downloaded".
        token: what goes with it.
        afterwards: what a failure leaves behind, and how to go on; a sentence.
    """

    repo_id: str
    doing: str
    token: str | None = field(default=None, repr=False)
    revision: str | None = None
    afterwards: str = ""

    @property
    def name(self) -> str:
        return f"{self.repo_id}@{self.revision}" if self.revision else self.repo_id or "The list of style packs"


def endpoint() -> str:
    """The Hub that is asked, or its mirror."""
    from huggingface_hub import constants

    return constants.ENDPOINT


@contextmanager
def asking(what: Asking) -> Iterator[None]:
    """Turn every failure into one sentence.

    Raises:
        HubError: for whatever the block raises.
    """
    try:
        yield
    except Distill3dError:
        raise
    except Exception as error:  # what the client lets through of its transport depends on its version
        raise failure(error, what) from error


def failure(error: Exception, what: Asking) -> HubError:
    """The error as one sentence, and what is left behind as another."""
    said = next(filter(None, (_sentence(cause, what) for cause in causes(error))), None)
    said = said or f"{what.name} could not be {what.doing} ({reason(error, what)})."
    return HubError(f"{said} {what.afterwards}".strip())


def causes(error: BaseException) -> list[BaseException]:
    """An error, what it was raised from, and so on."""
    chain: list[BaseException] = []
    step: BaseException | None = error
    while step is not None and step not in chain:
        chain.append(step)
        step = step.__cause__ or step.__context__
    return chain


def reason(error: BaseException, what: Asking) -> str:
    """The first line of what an error says, short, of printable characters, without tokens."""
    lines = [line for line in str(getattr(error, "server_message", None) or error).splitlines() if line.strip()]
    text = "".join(c if c.isprintable() else " " for c in (lines or [type(error).__name__])[0])
    text = text.replace(what.token, "...") if what.token else text
    return re.sub(r"\bhf_\w+", "hf_...", text).strip(" .")[:200]


def status_of(error: BaseException) -> int | None:
    """The number that the Hub answered with."""
    return getattr(getattr(error, "response", None), "status_code", None)


def is_unreachable(error: BaseException) -> bool:
    """No network, no answer in time, or a Hub that is out of order: nothing was said of what was asked."""
    return any(_is_transport(cause) or status_of(cause) in AGAIN_LATER for cause in causes(error))


def is_offline_mode(error: BaseException) -> bool:
    """The user does not want the network to be used."""
    return any(type(cause).__name__ == "OfflineModeIsEnabled" for cause in causes(error))


def _kinds(error: BaseException) -> set[str]:
    """The names of all classes that an error is of: the client's transport has changed libraries."""
    return {kind.__name__ for kind in type(error).__mro__}


def _is_transport(error: BaseException) -> bool:
    return status_of(error) is None and bool(
        {"TransportError", "RequestException", "ConnectionError", "TimeoutError", "gaierror"} & _kinds(error)
    )


def _sentence(error: BaseException, what: Asking) -> str | None:
    """What an error means; None for one that means nothing yet."""
    kinds = _kinds(error)
    if "GatedRepoError" in kinds:
        return (
            f"{what.repo_id} is gated: accept its owner's terms at {endpoint()}/{what.repo_id}, then fetch it with a "
            f"token of the same account: {SIGN_IN}."
        )
    if "RevisionNotFoundError" in kinds:
        return f"{what.repo_id} on the Hub has no branch, tag or commit {what.revision or 'main'}."
    if "RepositoryNotFoundError" in kinds:
        hint = "and your token may not read it" if what.token else f"and needs a token: {SIGN_IN}"
        return f"The Hub ({endpoint()}) has no model {what.repo_id}, or it is private {hint}."
    if "OfflineModeIsEnabled" in kinds:
        return f"{what.name} could not be {what.doing}: HF_HUB_OFFLINE forbids to ask the Hub."
    if "Invalid metadata in README.md" in str(error):
        faults = " ".join(str(error).splitlines()[1:]).removeprefix("- ")
        return f"The Hub does not take the card of {what.repo_id}: {faults[:300]}."
    status = status_of(error)
    return _of_status(error, status, what) if status is not None else _of_system(error, kinds, what)


def _of_status(error: BaseException, status: int, what: Asking) -> str | None:
    tokens = f"{endpoint()}/settings/tokens"
    if status == 401 and what.token:
        return f"The Hub does not accept the token: it is wrong or has expired. Make one at {tokens}, then {SIGN_IN}."
    if status == 401:
        return f"{what.name} could not be {what.doing} without a token: {SIGN_IN}."
    if status == 403:
        token = "with this token" if what.token else "without a token"
        return f"{what.name} could not be {what.doing} {token} ({reason(error, what)}). See {tokens}."
    if status in (409, 412):
        return f"Somebody else changed {what.repo_id} at the same time ({reason(error, what)})."
    if status == 429:
        return f"{what.name} could not be {what.doing}: the Hub has been asked too often. Try again in some minutes."
    if status in AGAIN_LATER:
        return f"{what.name} could not be {what.doing}: the Hub is out of order ({status}). Try again later."
    return f"{what.name} could not be {what.doing}: the Hub answers {status} ({reason(error, what)})."


def _of_system(error: BaseException, kinds: set[str], what: Asking) -> str | None:
    number = getattr(error, "errno", None)
    if number in (errno.ENOSPC, errno.EDQUOT):
        return f"{what.name} could not be {what.doing}: the disk is full."
    if number in (errno.EACCES, errno.EROFS, errno.EPERM):
        place = getattr(error, "filename", None)
        return f"{what.name} could not be {what.doing}: {place} cannot be written. HF_HOME names another place."
    if kinds & {"JSONDecodeError", "FileMetadataError"}:
        return f"{what.name} could not be {what.doing}: {endpoint()} does not answer as a Hub does. See HF_ENDPOINT."
    if any("Timeout" in kind for kind in kinds):
        return f"{what.name} could not be {what.doing}: {endpoint()} did not answer in time."
    if _is_transport(error):
        return (
            f"{what.name} could not be {what.doing}: the connection to {endpoint()} failed; is there a network? "
            f"({reason(error, what)})"
        )
    return None
