"""The Hugging Face Hub, through its own client.

The client brings what users rely on: HF_TOKEN and stored logins, HF_ENDPOINT mirrors,
HF_HUB_OFFLINE, proxies, Xet storage. Read with huggingface_hub 2.4.0: `hf_hub_download` keeps no
partial file between runs, so an interrupted file starts again; files that are done stay done.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

from llmctl.core.artifact import RepoFile, RepoInfo
from llmctl.hub.base import OnBytes

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

TIMEOUT_S = 30.0


class HuggingFaceHub:
    """The hub at HF_ENDPOINT, or at `endpoint`.

    Args:
        endpoint: The hub's address; by default HF_ENDPOINT or the public hub.
        token: An access token; by default HF_TOKEN or the stored login. False sends none.
    """

    def __init__(
        self, endpoint: str | None = None, token: str | Literal[False] | None = None
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._seen: dict[tuple[str, str | None], RepoInfo] = {}

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        """See `Hub.describe`; one request, and none when this object was asked before."""
        if (repo, revision) not in self._seen:
            api = self._api()
            with _translated(api, repo, revision, None):
                self._seen[repo, revision] = _describe(api, repo, revision)
        return self._seen[repo, revision]

    def download(
        self, repo: str, commit: str, remote: str, destination: Path, on_bytes: OnBytes
    ) -> None:
        """See `Hub.download`; works in `<destination>.d`, which is gone afterwards."""
        api = self._api()
        aside = destination.with_name(f"{destination.name}.d")
        with _translated(api, repo, commit, remote):
            try:
                shutil.rmtree(aside, ignore_errors=True)
                aside.mkdir(parents=True)
                _meet_refusals(api, repo, commit, remote)
                file = api.hf_hub_download(
                    repo,
                    remote,
                    revision=commit,
                    local_dir=aside,
                    tqdm_class=_bar_class(on_bytes),
                )
                Path(file).replace(destination)
            finally:
                shutil.rmtree(aside, ignore_errors=True)

    def _api(self) -> HfApi:
        # Both are read when the library is imported: nothing about this machine leaves it unasked.
        os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
        from huggingface_hub import HfApi
        from huggingface_hub.utils.logging import set_verbosity

        # Its warnings print addresses of the CDN with their signatures; errors are ours to tell.
        set_verbosity(logging.ERROR)
        return HfApi(endpoint=self._endpoint, token=self._token, library_name="llmctl")


def _describe(api: HfApi, repo: str, revision: str | None) -> RepoInfo:
    info = api.model_info(repo, revision=revision, files_metadata=True, timeout=TIMEOUT_S)
    return RepoInfo(
        repo=repo,
        commit=str(info.sha),
        licence=_licence(info),
        gated=bool(info.gated),
        files=tuple(
            RepoFile(
                path=sibling.rfilename,
                size=sibling.lfs.size if sibling.lfs else sibling.size,
                sha256=sibling.lfs.sha256 if sibling.lfs else None,
            )
            for sibling in info.siblings or ()
        ),
    )


def _licence(info: ModelInfo) -> str | None:
    """The card's licence; its own name where the card says "other"."""
    licence = getattr(info.card_data, "license", None)
    if licence == "other":
        licence = getattr(info.card_data, "license_name", None) or licence
    if isinstance(licence, list):
        licence = ", ".join(map(str, licence))
    return str(licence) if licence else None


def _meet_refusals(api: HfApi, repo: str, commit: str, remote: str) -> None:
    """Ask for the file's metadata once, so that a lasting refusal is told at once.

    `hf_hub_download` would retry it, silently and for minutes where the hub names a rate limit.
    What may pass by itself (a timeout, a 5xx) is left to it.
    """
    from huggingface_hub import hf_hub_url

    from llmctl.hub.errors import CLIENT_ERRORS, may_pass

    url = hf_hub_url(repo, remote, revision=commit, endpoint=api.endpoint)
    try:
        api.get_hf_file_metadata(url=url, timeout=TIMEOUT_S)
    except CLIENT_ERRORS as error:
        if not may_pass(error):
            raise


@contextmanager
def _translated(api: HfApi, repo: str, revision: str | None, remote: str | None) -> Iterator[None]:
    """Turn what the client raises into errors of ours; what it should never raise goes through."""
    from llmctl.hub.errors import CLIENT_ERRORS, Asked, is_missing_file, translate

    try:
        yield
    except CLIENT_ERRORS as error:
        files: tuple[str, ...] = ()
        if is_missing_file(error):
            with _translated(api, repo, revision, None):
                files = tuple(file.path for file in _describe(api, repo, revision).files)
        asked = Asked(api.endpoint, repo, revision, remote, _has_token(api), files)
        raise translate(error, asked) from error


def _has_token(api: HfApi) -> bool:
    from huggingface_hub import get_token

    return bool(get_token() if api.token is None else api.token)


def _bar_class(on_bytes: OnBytes) -> Any:
    """What the client takes for a tqdm class: it counts bytes and draws nothing.

    `update_transfer` and the postfixes are what its Xet path calls beside `update`.
    """

    class Bar:
        def __init__(self, *, total: int | None = None, initial: int = 0, **_: Any) -> None:
            self.total = total
            self.n = initial
            on_bytes(self.n, self.total)

        def update(self, n: int = 1) -> None:
            self.n += n
            on_bytes(self.n, self.total)

        def update_transfer(self, n: int) -> None:
            pass

        def set_postfix_str(self, text: str, *, refresh: bool = True) -> None:
            pass

        set_transfer_postfix_str = set_postfix_str

        def close(self) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

    return Bar
