"""What a user writes to name a repository: `hf://organisation/repository[:quant][@revision]`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from llmctl.errors import ConfigError

SCHEME = "hf://"
FORM = "hf://organisation/repository[:quantisation][@revision]"

# The hub's own rule for one half of a repository's name.
_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_NAME}/{_NAME}")
# A quantisation (Q4_K_M), or the name of one file where a repository holds several models.
_QUANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,199}")
# A branch, tag, commit or refs/pr/1; git forbids "..", and so do we.
_REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
_PAGES = ("blob", "resolve", "tree", "raw")
_REPO_LENGTH = 96


@dataclass(frozen=True)
class HubReference:
    """A parsed reference.

    Attributes:
        repo: `organisation/repository`.
        quant: The quantisation or file asked for, None for the usual order of preference.
        revision: Branch, tag or commit, None for the repository's main branch.
    """

    repo: str
    quant: str | None = None
    revision: str | None = None

    def __str__(self) -> str:
        quant = f":{self.quant}" if self.quant else ""
        revision = f"@{self.revision}" if self.revision else ""
        return f"{SCHEME}{self.repo}{quant}{revision}"


def is_reference(source: str) -> bool:
    """Whether `source` means a repository, or was meant to, rather than a catalogue name."""
    return "/" in source or ":" in source


def parse_reference(source: str) -> HubReference:
    """Read an hf:// reference.

    Raises:
        ConfigError: it is something else; a web address pasted from a hub's page is recognised by
            its shape and the hint is the reference that means the same.
    """
    if re.match(r"https?://", source, re.IGNORECASE):
        raise _pasted_address(source)
    if not source.startswith(SCHEME):
        looks_right = _REPO.fullmatch(source.partition(":")[0].partition("@")[0])
        raise ConfigError(
            f'"{source}": a repository is written {FORM}',
            hint=f"{SCHEME}{source}" if looks_right else "llmctl models list",
        )
    rest, at, revision = source.removeprefix(SCHEME).partition("@")
    repo, colon, quant = rest.partition(":")
    if not is_repo(repo):
        more = repo.count("/") > 1
        extra = "; a file is chosen with :FILE.gguf after it" if more else ""
        raise ConfigError(
            f'"{source}": "{repo}" is not organisation/repository{extra}',
            hint=_for_file(repo) or FORM,
        )
    if colon and not (_QUANT.fullmatch(quant) and ".." not in quant):
        raise ConfigError(
            f'"{source}": "{quant}" is neither a quantisation nor a file name',
            hint=f"{SCHEME}{repo}:Q4_K_M",
        )
    if at and not (_REVISION.fullmatch(revision) and ".." not in revision):
        raise ConfigError(
            f'"{source}": "{revision}" is not a branch, tag or commit', hint=f"{SCHEME}{rest}@main"
        )
    return HubReference(repo, quant or None, revision or None)


def is_repo(text: str) -> bool:
    """Whether `text` is a repository's full name by the hub's rules."""
    return (
        bool(_REPO.fullmatch(text))
        and len(text) <= _REPO_LENGTH
        and "--" not in text
        and ".." not in text
        and not text.endswith(".git")
    )


def _for_file(path: str) -> str | None:
    """The reference for org/repo/folder/file.gguf, None when that is not its shape."""
    parts = path.split("/")
    repo, file = "/".join(parts[:2]), "/".join(parts[2:])
    return f"{SCHEME}{repo}:{file}" if is_repo(repo) and _QUANT.fullmatch(file) else None


def _pasted_address(source: str) -> ConfigError:
    """A page's address, `https://<hub>/org/repo[/blob|resolve|tree|raw/<revision>[/<file>]]`."""
    parts = [unquote(part) for part in urlsplit(source).path.split("/") if part]
    repo = "/".join(parts[:2])
    message = f'"{source}" is the address of a web page'
    if not is_repo(repo):
        return ConfigError(f"{message}; a repository is written {FORM}", hint="llmctl models list")
    reference = HubReference(repo)
    if len(parts) > 3 and parts[2] in _PAGES:  # noqa: PLR2004 - org, repo, kind of page, revision
        revision = None if parts[3] == "main" else parts[3]
        file = "/".join(parts[4:])
        quant = file if file.lower().endswith(".gguf") and parts[2] != "tree" else None
        reference = HubReference(repo, quant, revision)
    return ConfigError(f"{message}, not a reference; the same repository is", hint=str(reference))
