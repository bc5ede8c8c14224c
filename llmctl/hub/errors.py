"""What went wrong at the hub, told apart: the client's exceptions in words a user can act on.

No message holds a token or the signed address of a CDN.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from huggingface_hub.errors import (  # type: ignore[attr-defined]
    DisabledRepoError,
    FileMetadataError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # the base of its HTTP library, whichever that is
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from llmctl.errors import DiskFullError, HubError, LlmctlError

# What the client raises when the world, not the program, is at fault.
CLIENT_ERRORS: tuple[type[Exception], ...] = (HTTPError, OSError, json.JSONDecodeError)
LOGIN = "HF_TOKEN=... in the environment, or `hf auth login`"


@dataclass(frozen=True)
class Asked:
    """What was asked of the hub.

    Attributes:
        endpoint: The hub's address.
        repo: `organisation/repository`.
        revision: Branch, tag or commit, None for main.
        remote: The file, None when the repository was asked for.
        with_token: Whether a token was sent.
        files: What the repository holds, where that helps.
    """

    endpoint: str
    repo: str
    revision: str | None
    remote: str | None
    with_token: bool
    files: tuple[str, ...] = ()

    @property
    def hub(self) -> str:
        """The hub's address without a user name and password."""
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def page(self) -> str:
        """The repository's web page."""
        return f"{self.hub}/{self.repo}"


def translate(error: Exception, asked: Asked) -> LlmctlError:
    """The error of ours that says what `error` means."""
    match error:
        case LocalEntryNotFoundError(__cause__=Exception() as cause):
            # The client looked for a local copy after the real failure.
            return translate(cause, asked)
        case OfflineModeIsEnabled():
            return HubError(
                f"{asked.repo}: is not complete on this disk, and HF_HUB_OFFLINE is set",
                hint="unset HF_HUB_OFFLINE",
            )
        case FileMetadataError() | json.JSONDecodeError():
            return HubError(
                f"{asked.hub} does not answer like a model hub (a proxy's sign-in page?)",
                hint="check HF_ENDPOINT and HTTPS_PROXY; open that address in a browser",
            )
        case HfHubHTTPError():
            return _answer(error, asked)
    return _connection(error, asked)


def is_missing_file(error: Exception) -> bool:
    """Whether the repository is there and the file in it is not."""
    return isinstance(error, RemoteEntryNotFoundError)


def may_pass(error: Exception) -> bool:
    """Whether trying again soon may help: a timeout, or a server's own failure."""
    if isinstance(error, HfHubHTTPError):
        status = int(error.response.status_code)
        return status >= 500 or status == 408  # noqa: PLR2004 - server errors; request timeout
    return any(isinstance(cause, TimeoutError) for cause in _chain(error))


def _answer(error: HfHubHTTPError, asked: Asked) -> LlmctlError:
    """The hub answered with an HTTP error."""
    status = int(error.response.status_code)
    said = _said(error)
    bad_token = asked.with_token and "invalid credentials" in said.lower()
    match error:
        case _ if bad_token:
            return HubError(
                f"{asked.hub} does not accept the token (invalid or expired)",
                hint=f"{LOGIN}; tokens are made at {asked.hub}/settings/tokens",
            )
        case GatedRepoError():
            return _gated(asked)
        case RevisionNotFoundError():
            return HubError(
                f'{asked.repo}: has no branch, tag or commit "{asked.revision}"',
                hint=f"hf://{asked.repo}@main; the revisions are at {asked.page}/tree/main",
            )
        case RemoteEntryNotFoundError():
            gguf = sorted(path for path in asked.files if path.lower().endswith(".gguf"))
            there = "\n".join(path for path in gguf or sorted(asked.files) if path.isprintable())
            return HubError(
                f"{asked.repo}: has no file {asked.remote} at {asked.revision or 'main'}",
                hint=f"choose one of its files: hf://{asked.repo}:FILE.gguf",
                details=there or None,
            )
        case DisabledRepoError():
            return HubError(f"{asked.repo}: was disabled by the hub", hint=asked.page)
        case RepositoryNotFoundError():
            return _not_found(asked)
    match status:
        case 401 | 404:
            return _not_found(asked)
        case 403:
            return HubError(
                f"{asked.repo}: the token may not read it{_quoted(said)}",
                hint=f"give it read access to this repository at {asked.hub}/settings/tokens",
            )
        case 429:
            until = _until(error.response.headers)
            return HubError(
                f"{asked.hub} limits how often it may be asked{until}",
                hint="wait, then run it again"
                if asked.with_token
                else f"a token raises the limit: {LOGIN}",
            )
    return HubError(
        f"{asked.hub} failed with HTTP {status}{_quoted(said)}",
        hint="try again in a few minutes" if status >= 500 else asked.page,  # noqa: PLR2004
    )


def _gated(asked: Asked) -> HubError:
    if asked.with_token:
        return HubError(
            f"{asked.repo}: is gated, and the account of your token has no access",
            hint=f"accept the terms at {asked.page} with that account, then run it again",
        )
    return HubError(
        f"{asked.repo}: is gated: its terms have to be accepted with an account",
        hint=f"accept them at {asked.page}, then give a token of that account: {LOGIN}",
    )


def _not_found(asked: Asked) -> HubError:
    """The hub gives one answer for what does not exist and what one may not see."""
    if asked.with_token:
        return HubError(
            f"{asked.repo}: does not exist on {asked.hub}, or your token may not see it",
            hint=f"check the spelling; open {asked.page} with the token's account",
        )
    return HubError(
        f"{asked.repo}: does not exist on {asked.hub}, or is private and needs a token",
        hint=f"check the spelling at {asked.page}; for a private repository {LOGIN}",
    )


def _connection(error: Exception, asked: Asked) -> LlmctlError:
    """No answer came, or it broke off, or it could not be written down."""
    chain = tuple(_chain(error))
    host = urlsplit(asked.hub).hostname or asked.hub
    for cause in chain:
        match cause:
            case ssl.SSLCertVerificationError():
                return HubError(
                    f"{host}: its certificate is not trusted here: {cause.verify_message}",
                    hint="a proxy that inspects TLS? SSL_CERT_FILE=/path/to/its-ca.pem",
                )
            case ssl.SSLError():
                return HubError(
                    f"{host}: does not speak TLS as it should: {cause.reason}",
                    hint="check HF_ENDPOINT (http or https?) and HTTPS_PROXY",
                )
            case socket.gaierror():
                return HubError(
                    f"{host}: the name does not resolve; is there a network?",
                    hint="check the network, or HF_ENDPOINT and HTTPS_PROXY",
                )
            case TimeoutError():
                return HubError(
                    f"{host}: no answer in time",
                    hint="check the network or the proxy, then run it again",
                )
            case ConnectionRefusedError():
                return HubError(
                    f"{host}: refuses the connection", hint="check HF_ENDPOINT and HTTPS_PROXY"
                )
            case OSError(errno=errno.ENOSPC | errno.EDQUOT):
                return DiskFullError(
                    f"{asked.repo}: the disk filled up while {asked.remote} was written",
                    hint="df -h . ; free some space, then run it again",
                )
            case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
                where = cause.filename or "the models directory"
                return LlmctlError(
                    f"{where}: {cause.strerror}", hint="ls -ld models models/.partial"
                )
    if any(type(cause).__name__ == "ProxyError" for cause in chain):
        return HubError("the proxy refuses or fails", hint="check HTTPS_PROXY and NO_PROXY")
    what = f"{asked.repo}/{asked.remote}" if asked.remote else asked.repo
    if "Consistency check failed" in str(error):
        # What the client raises when less or more came than the metadata said.
        return HubError(
            f"{what}: the transfer did not bring the whole file; nothing was kept",
            hint="run it again; if it stays so, a proxy alters it (HF_ENDPOINT, HTTPS_PROXY)",
        )
    return HubError(
        f"{what}: the connection to {host} failed ({type(error).__name__})",
        hint="run it again; check HF_ENDPOINT, HTTPS_PROXY and the network if it stays so",
    )


def _chain(error: BaseException) -> Iterator[BaseException]:
    """The error and what led to it; the HTTP library wraps the system's own errors twice."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _said(error: HfHubHTTPError) -> str:
    """The hub's own words on one line."""
    text = error.response.headers.get("X-Error-Message") or error.server_message or ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _quoted(said: str) -> str:
    return f": {said}" if said else ""


def _until(headers: Mapping[str, str]) -> str:
    """Until when, such as `, until 18:42:10 (in 55 s)`; empty when the hub does not say."""
    now = datetime.now(UTC).astimezone()
    if found := re.search(r";\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", "")):
        seconds = int(found[1])
    elif (after := headers.get("Retry-After", "").strip()).isdigit() and len(after) < 10:  # noqa: PLR2004
        seconds = int(after)
    elif after:
        try:
            seconds = int((parsedate_to_datetime(after) - now).total_seconds())
        except (TypeError, ValueError):
            return ""
    else:
        return ""
    return f", until {now + timedelta(seconds=seconds):%H:%M:%S} (in {max(seconds, 0)} s)"
