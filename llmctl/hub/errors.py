"""What went wrong at the hub, told apart: the client's exceptions in words a user can act on.

No message holds a token or the signed address of a CDN.
"""

from __future__ import annotations

import errno
import json
import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
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

from llmctl.errors import GateError, HubError, LlmctlError
from llmctl.hub.failures import (
    ChangedError,
    NoRangeError,
    OddAnswerError,
    RefusedError,
    SignInPageError,
    TransferError,
    UnusableError,
    WrongContentError,
    chain,
    wait_s,
)

# What the client raises when the world, not the program, is at fault.
CLIENT_ERRORS: tuple[type[Exception], ...] = (
    HTTPError,
    OSError,
    json.JSONDecodeError,
    TransferError,
)
LOGIN = "HF_TOKEN=... in the environment, or `hf auth login`"


# The client's exceptions for the hub's own codes, the special ones first.
_CODES: tuple[tuple[type[Exception], str], ...] = (
    (GatedRepoError, "GatedRepo"),
    (RevisionNotFoundError, "RevisionNotFound"),
    (RemoteEntryNotFoundError, "EntryNotFound"),
    (DisabledRepoError, "Disabled"),
    (RepositoryNotFoundError, "RepoNotFound"),
)
_DISABLED = "Access to this resource is disabled."


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
            return _sign_in_page(asked.hub)
        case HfHubHTTPError():
            code = next((code for kind, code in _CODES if isinstance(error, kind)), "")
            status = int(error.response.status_code)
            said = error.response.headers.get("X-Error-Message") or error.server_message or ""
            return _refused(status, code, _on_one_line(said), error.response.headers, asked)
        case RefusedError(at_hub=True):
            code = "Disabled" if error.said == _DISABLED else error.code
            return _refused(error.status, code, _on_one_line(error.said), error.headers, asked)
        case TransferError():
            return _transfer(error, asked)
    return _connection(error, asked, urlsplit(asked.hub).hostname or asked.hub)


def is_missing_file(error: Exception) -> bool:
    """Whether the repository is there and the file in it is not."""
    return isinstance(error, RemoteEntryNotFoundError) or (
        isinstance(error, RefusedError) and error.at_hub and error.code == "EntryNotFound"
    )


def _refused(
    status: int, code: str, said: str, headers: Mapping[str, str], asked: Asked
) -> LlmctlError:
    """The hub answered with an HTTP error."""
    if asked.with_token and "invalid credentials" in said.lower():
        return HubError(
            f"{asked.hub} does not accept the token (invalid or expired)",
            hint=f"{LOGIN}; tokens are made at {asked.hub}/settings/tokens",
        )
    match code:
        case "GatedRepo":
            return _gated(asked)
        case "RevisionNotFound":
            return HubError(
                f'{asked.repo}: has no branch, tag or commit "{asked.revision}"',
                hint=f"hf://{asked.repo}@main; the revisions are at {asked.page}/tree/main",
            )
        case "EntryNotFound":
            gguf = sorted(path for path in asked.files if path.lower().endswith(".gguf"))
            there = "\n".join(path for path in gguf or sorted(asked.files) if path.isprintable())
            return HubError(
                f"{asked.repo}: has no file {asked.remote} at {asked.revision or 'main'}",
                hint=f"choose one of its files: hf://{asked.repo}:FILE.gguf",
                details=there or None,
            )
        case "Disabled":
            return HubError(f"{asked.repo}: was disabled by the hub", hint=asked.page)
        case "RepoNotFound":
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
            return _limited(asked.hub, headers, asked)
    return _failed(asked.hub, status, said, asked)


def _transfer(error: TransferError, asked: Asked) -> LlmctlError:
    """A file, or a part of one, did not come from the hub or from where it redirects to."""
    what = f"{asked.repo}/{asked.remote}"
    mirror = "run it again; if it stays so, a proxy or mirror alters it (HF_ENDPOINT, HTTPS_PROXY)"
    match error:
        case RefusedError(status=407):
            return HubError(
                "the proxy asks for a user name and a password",
                hint="HTTPS_PROXY=http://user:password@host:port",
            )
        case RefusedError(status=429):
            return _limited(error.host, error.headers, asked)
        case RefusedError(passes=True):
            return _failed(error.host, error.status, "", asked)
        case RefusedError():
            return HubError(
                f"{what}: {error.host} refuses to send it (HTTP {error.status})", hint=mirror
            )
        case SignInPageError():
            return _sign_in_page(error.host)
        case NoRangeError():
            return HubError(
                f"{what}: {error.host} cannot send a part of a file",
                hint="a mirror without range requests? unset HF_ENDPOINT, or check HTTPS_PROXY",
            )
        case OddAnswerError():
            return HubError(
                f"{what}: {error.host} {error.what}",
                hint="a mirror or proxy without range requests? check HF_ENDPOINT and HTTPS_PROXY",
            )
        case UnusableError():
            return HubError(f"{what}: {error.host} {error.what}", hint=mirror)
        case ChangedError():
            return HubError(
                f"{what}: {error.host} sends another content than a moment ago, twice in a row",
                hint=mirror,
            )
        case WrongContentError():
            return HubError(f"{what}: {error.what}; nothing was kept", hint=mirror)
    return _connection(error, asked, error.host)


def _sign_in_page(hub: str) -> HubError:
    return HubError(
        f"{hub} does not answer like a model hub (a proxy's sign-in page?)",
        hint="check HF_ENDPOINT and HTTPS_PROXY; open that address in a browser",
    )


def _limited(who: str, headers: Mapping[str, str], asked: Asked) -> HubError:
    return HubError(
        f"{who} limits how often it may be asked{_until(headers)}",
        hint="wait, then run it again"
        if asked.with_token
        else f"a token raises the limit: {LOGIN}",
    )


def _failed(who: str, status: int, said: str, asked: Asked) -> HubError:
    return HubError(
        f"{who} failed with HTTP {status}{_quoted(said)}",
        hint="try again in a few minutes" if status >= 500 else asked.page,  # noqa: PLR2004
    )


def _gated(asked: Asked) -> GateError:
    if asked.with_token:
        return GateError(
            f"{asked.repo}: is gated, and the account of your token has no access",
            hint=f"accept the terms at {asked.page} with that account, then run it again",
        )
    return GateError(
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


def _connection(error: Exception, asked: Asked, host: str) -> LlmctlError:
    """No answer came, or it broke off, or it could not be written down."""
    causes = tuple(chain(error))
    certificate = any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes)
    if not certificate and any("Proxy" in type(cause).__name__ for cause in causes):
        return HubError("the proxy refuses or fails", hint="check HTTPS_PROXY and NO_PROXY")
    for cause in causes:
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
            case OSError(errno=errno.EACCES | errno.EPERM | errno.EROFS):
                where = cause.filename or "the models directory"
                return LlmctlError(
                    f"{where}: {cause.strerror}", hint="ls -ld models models/.partial"
                )
    what = f"{asked.repo}/{asked.remote}" if asked.remote else asked.repo
    return HubError(
        f"{what}: the connection to {host} failed ({_kind(error)})",
        hint="run it again; check HF_ENDPOINT, HTTPS_PROXY and the network if it stays so",
    )


def _kind(error: Exception) -> str:
    return error.what if isinstance(error, TransferError) else type(error).__name__


def _on_one_line(text: str) -> str:
    """The hub's own words, fit for a terminal."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())[:300]


def _quoted(said: str) -> str:
    return f": {said}" if said else ""


def _until(headers: Mapping[str, str]) -> str:
    """Until when, such as `, until 18:42:10 (in 55 s)`; empty when the hub does not say."""
    if found := re.search(r";\s*t\s*=\s*(\d{1,9})", headers.get("RateLimit", "")):
        seconds = int(found[1])
    elif (asked_for := wait_s(headers)) is not None:
        seconds = int(asked_for)
    else:
        return ""
    until = datetime.now(UTC).astimezone() + timedelta(seconds=seconds)
    return f", until {until:%H:%M:%S} (in {seconds} s)"
