"""The Hugging Face Hub: what it has through its own client, the files themselves through ours.

The client brings what users rely on: HF_TOKEN and stored logins, HF_ENDPOINT mirrors,
HF_HUB_OFFLINE. Its `hf_hub_download` (read with 2.4.0) keeps no partial file between runs, so an
interrupted file of many gigabytes would start again; hence `transfer`.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from llmctl.core.artifact import RepoFile, RepoInfo
from llmctl.hub.base import OnBytes
from llmctl.hub.pace import Patience

# A pull with nothing to do makes a hub and asks it nothing; what only asking needs comes later.
if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

    from llmctl.hub.address import Address
    from llmctl.hub.wire import Wire

TIMEOUT_S = 30.0


class HuggingFaceHub:
    """The hub at HF_ENDPOINT, or at `endpoint`.

    Args:
        endpoint: The hub's address; by default HF_ENDPOINT or the public hub.
        token: An access token; by default HF_TOKEN or the stored login. False sends none.
        patience: With a bad network, while files are read.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | Literal[False] | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._endpoint = endpoint
        self._token = token
        self._patience = patience or Patience()
        self._wire: Wire | None = None
        self._addresses: dict[tuple[str, str, str], Address] = {}
        self._lock = threading.Lock()
        self._seen: dict[tuple[str, str | None], RepoInfo] = {}

    def describe(self, repo: str, revision: str | None) -> RepoInfo:
        """See `Hub.describe`; one request, and none when this object was asked before."""
        if (repo, revision) not in self._seen:
            api = self._api()
            with _translated(api, repo, revision, None):
                self._seen[repo, revision] = _describe(api, repo, revision)
        return self._seen[repo, revision]

    def read(self, repo: str, commit: str, remote: str, start: int, stop: int) -> bytes:
        """See `Hub.read`; one request once the file was asked for before."""
        from llmctl.hub import download

        api = self._api()
        with _translated(api, repo, commit, remote):
            address = self._address(api, repo, commit, remote)
            return download.read(address, start, stop, self._patience)

    def cached(self, repo: str, commit: str, file: RepoFile) -> Path | None:
        """See `Hub.cached`; the cache is that of HF_HUB_CACHE."""
        from huggingface_hub import constants

        from llmctl.hub.cache import find

        return find(Path(constants.HF_HUB_CACHE), repo, commit, file)

    def download(
        self, repo: str, commit: str, file: RepoFile, aside: Path, on_bytes: OnBytes
    ) -> str:
        """See `Hub.download`; the journal of what has come lies beside `aside`."""
        from llmctl.hub import download
        from llmctl.hub.store import BY_HASH

        api = self._api()
        content = f"{BY_HASH}{file.sha256}" if file.sha256 else f"{repo}@{commit}/{file.path}"
        with _translated(api, repo, commit, file.path):
            address = self._address(api, repo, commit, file.path)
            return download.fetch(address, file, content, aside, self._patience, on_bytes)

    def _address(self, api: HfApi, repo: str, commit: str, remote: str) -> Address:
        """Where a file is; kept, so that one redirect serves many reads.

        Plain HTTP ranges: Xet's storage answers them too, behind the same redirect.
        """
        from huggingface_hub import constants, hf_hub_url
        from huggingface_hub.errors import OfflineModeIsEnabled
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        from llmctl.hub.address import Address
        from llmctl.hub.wire import Wire

        if constants.HF_HUB_OFFLINE:
            raise OfflineModeIsEnabled
        with self._lock:
            if (repo, commit, remote) not in self._addresses:
                url = hf_hub_url(repo, remote, revision=commit, endpoint=api.endpoint)
                headers = build_hf_headers(token=api.token, library_name="llmctl")
                self._wire = self._wire or Wire(self._patience)
                self._addresses[repo, commit, remote] = Address(self._wire, url, headers)
            return self._addresses[repo, commit, remote]

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
