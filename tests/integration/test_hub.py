"""The hub edge: the real Hugging Face client against a hub on this machine."""

from __future__ import annotations

import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmctl.core.artifact import RepoFile
from llmctl.errors import HubError, LlmctlError
from llmctl.hub import huggingface
from llmctl.hub.huggingface import HuggingFaceHub
from llmctl.hub.pace import Patience
from tests.world.hub import Fault, LocalHub, Repo

TOKEN = "hf_secretSECRETsecret"
MODEL = b"GGUF" + random.Random(1).randbytes(3_000_000)
REPO = "org/vision-GGUF"
FILE = RepoFile("model-Q4_K_M.gguf", len(MODEL), hashlib.sha256(MODEL).hexdigest())
QUICK = Patience(tries=4, first_s=0.01, most_s=0.02, stall_s=2)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    from huggingface_hub import close_session, constants

    for name in ("HF_TOKEN", "HF_ENDPOINT", "HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "home/token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home/hub"))
    files: dict[str, bytes | Path] = {"model-Q4_K_M.gguf": MODEL, "README.md": b"# a card"}
    repos = {
        REPO: Repo(files, licence="apache-2.0"),
        "org/gated": Repo(files, gated=True, readers=frozenset({"hf_accepted"})),
        "org/private": Repo(files, private=True, readers=frozenset({TOKEN})),
    }
    with LocalHub(repos) as hub:
        hub.tokens = {TOKEN, "hf_accepted", "hf_no_scope"}
        hub.forbidden = {"hf_no_scope"}
        yield hub
        close_session()


def fetch(
    hub: LocalHub, destination: Path, repo: str = REPO, token: str | None = None
) -> list[tuple[int, int | None]]:
    heard: list[tuple[int, int | None]] = []
    sha256 = HuggingFaceHub(hub.url, token or False, QUICK).download(
        repo,
        hub.repos[repo].commit,
        FILE,
        destination,
        lambda done, total: heard.append((done, total)),
    )
    assert sha256 == FILE.sha256
    return heard


def ask(client: HuggingFaceHub, during: str, destination: Path) -> None:
    if during == "describe":
        client.describe(REPO, None)
    else:
        client.download(REPO, "main", FILE, destination, lambda *_: None)


def test_describe(hub: LocalHub) -> None:
    info = HuggingFaceHub(hub.url, token=False).describe(REPO, None)
    assert (info.repo, info.licence, info.gated) == (REPO, "apache-2.0", False)
    assert info.commit == hub.repos[REPO].commit
    by_path = {file.path: file for file in info.files}
    model = by_path["model-Q4_K_M.gguf"]
    assert (model.size, model.sha256) == (len(MODEL), hashlib.sha256(MODEL).hexdigest())
    assert by_path["README.md"].size == 8
    assert by_path["README.md"].sha256 is None


def test_describe_asks_once(hub: LocalHub) -> None:
    client = HuggingFaceHub(hub.url, token=False)
    assert client.describe(REPO, "main") == client.describe(REPO, "main")
    assert sum(hub.requests.values()) == 1


def test_nothing_else_is_asked_for(hub: LocalHub, tmp_path: Path) -> None:
    """No telemetry: only the repository and its file are ever requested."""
    HuggingFaceHub(hub.url, token=False).describe(REPO, None)
    fetch(hub, tmp_path / "x.gguf")
    assert all(REPO in request or request.startswith("CDN ") for request in hub.requests)


def test_download(hub: LocalHub, tmp_path: Path) -> None:
    destination = tmp_path / "partial/model.gguf"
    heard = fetch(hub, destination)
    assert destination.read_bytes() == MODEL
    assert [path.name for path in destination.parent.iterdir()] == ["model.gguf"]
    assert heard[0] == (0, len(MODEL))
    assert heard[-1] == (len(MODEL), len(MODEL))
    assert heard == sorted(heard)
    assert hub.sent["model-Q4_K_M.gguf"] == len(MODEL)


def test_the_token_reaches_the_hub_and_not_the_cdn(hub: LocalHub, tmp_path: Path) -> None:
    fetch(hub, tmp_path / "x.gguf", repo="org/private", token=TOKEN)
    assert hub.sent["model-Q4_K_M.gguf"] == len(MODEL)
    assert hub.leaked == []


def test_a_broken_connection_is_survived(hub: LocalHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("^/[0-9a-f]{64}/", cut=1_000_000, times=1))
    fetch(hub, tmp_path / "x.gguf")
    assert (tmp_path / "x.gguf").read_bytes() == MODEL
    assert sum(n for request, n in hub.requests.items() if request.startswith("CDN GET")) == 2


def test_a_short_file_leaves_nothing(hub: LocalHub, tmp_path: Path) -> None:
    hub.faults.append(Fault("^/[0-9a-f]{64}/", body=b"<!doctype html><p>sign in</p>"))
    with pytest.raises(HubError, match="has 29 bytes of it, 3000004 were announced"):
        fetch(hub, tmp_path / "partial/x.gguf")
    assert list((tmp_path / "partial").iterdir()) == []


def test_a_gated_repository_opens_with_the_right_token(hub: LocalHub, tmp_path: Path) -> None:
    assert HuggingFaceHub(hub.url, token=False).describe("org/gated", None).gated
    fetch(hub, tmp_path / "x.gguf", repo="org/gated", token="hf_accepted")
    assert (tmp_path / "x.gguf").read_bytes() == MODEL


@pytest.mark.parametrize(
    ("repo", "token", "message", "hint"),
    [
        ("org/typo", None, "does not exist on .* or is private and needs a token", "spelling"),
        ("org/typo", TOKEN, "does not exist on .* or your token may not see it", "spelling"),
        ("org/private", "hf_accepted", "or your token may not see it", "account"),
        (REPO, "hf_expired", "does not accept the token", "settings/tokens"),
        (REPO, "hf_no_scope", "the token may not read it: Forbidden: the token lacks", "tokens"),
    ],
)
def test_refusals_are_told_apart(
    hub: LocalHub, repo: str, token: str | None, message: str, hint: str
) -> None:
    with pytest.raises(HubError, match=message) as caught:
        HuggingFaceHub(hub.url, token or False).describe(repo, None)
    assert hint in (caught.value.hint or "")
    assert_tells_no_token(caught.value, token)


@pytest.mark.parametrize(
    ("token", "hint"), [(None, "then give a token of that account"), (TOKEN, "with that account")]
)
def test_gated(hub: LocalHub, tmp_path: Path, token: str | None, hint: str) -> None:
    with pytest.raises(HubError, match="org/gated: is gated") as caught:
        fetch(hub, tmp_path / "x.gguf", repo="org/gated", token=token)
    assert f"{hub.url}/org/gated" in (caught.value.hint or "")
    assert hint in (caught.value.hint or "")
    assert_tells_no_token(caught.value, token)


def test_an_unknown_revision(hub: LocalHub) -> None:
    with pytest.raises(HubError, match='has no branch, tag or commit "v9"'):
        HuggingFaceHub(hub.url, token=False).describe(REPO, "v9")


def test_an_unknown_file_lists_what_is_there(hub: LocalHub, tmp_path: Path) -> None:
    with pytest.raises(HubError, match=r"has no file model-Q8_0.gguf") as caught:
        HuggingFaceHub(hub.url, token=False).download(
            REPO, "main", RepoFile("model-Q8_0.gguf", 9), tmp_path / "x", lambda *_: None
        )
    assert caught.value.details == "model-Q4_K_M.gguf"


@pytest.mark.parametrize(
    ("headers", "until"),
    [
        ({"RateLimit": '"api";r=0;t=55'}, r", until \d\d:\d\d:\d\d \(in 55 s\)$"),
        ({"Retry-After": "120"}, r", until \d\d:\d\d:\d\d \(in 120 s\)$"),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, r", until \d\d:\d\d:\d\d \(in 0 s\)$"),
        ({"Retry-After": "soon"}, "$"),
        ({}, "$"),
    ],
)
def test_rate_limits_are_told(hub: LocalHub, headers: dict[str, str], until: str) -> None:
    hub.faults.append(Fault("", status=429, headers=headers))
    with pytest.raises(HubError, match=f"limits how often it may be asked{until}") as caught:
        HuggingFaceHub(hub.url, token=False).describe(REPO, None)
    assert "token raises the limit" in (caught.value.hint or "")
    assert sum(hub.requests.values()) == 1


def test_a_failing_hub(hub: LocalHub) -> None:
    hub.faults.append(Fault("", status=503))
    with pytest.raises(HubError, match="failed with HTTP 503"):
        HuggingFaceHub(hub.url, token=False).describe(REPO, None)


@pytest.mark.parametrize("during", ["describe", "download"])
def test_a_sign_in_page_instead_of_the_hub(hub: LocalHub, tmp_path: Path, during: str) -> None:
    page = {"Content-Type": "text/html"}
    hub.faults.append(Fault("", status=200, headers=page, body=b"<html>sign in</html>"))
    client = HuggingFaceHub(hub.url, token=False)
    with pytest.raises(HubError, match="does not answer like a model hub"):
        ask(client, during, tmp_path / "x")


def test_offline(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        HuggingFaceHub(hub.url, token=False).describe(REPO, None)
    assert not hub.requests


def test_nobody_listens(hub: LocalHub, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # bound, never listening: refused for sure
        client = HuggingFaceHub(f"http://127.0.0.1:{bound.getsockname()[1]}", token=False)
        with pytest.raises(HubError, match="refuses the connection"):
            client.describe(REPO, None)
        with pytest.raises(HubError, match="refuses the connection"):
            client.download(REPO, hub.repos[REPO].commit, FILE, tmp_path / "x", lambda *_: None)


@pytest.mark.usefixtures("hub")
def test_a_name_that_does_not_resolve() -> None:
    with pytest.raises(HubError, match="does not resolve"):
        HuggingFaceHub("http://hub.invalid", token=False).describe(REPO, None)


@pytest.mark.usefixtures("hub")
def test_no_answer_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = HuggingFaceHub(f"http://127.0.0.1:{silent.getsockname()[1]}", token=False)
        with pytest.raises(HubError, match="no answer in time"):
            client.describe(REPO, None)


def test_tls_where_there_is_none(hub: LocalHub) -> None:
    with pytest.raises(HubError, match="does not speak TLS"):
        HuggingFaceHub(hub.url.replace("http://", "https://"), token=False).describe(REPO, None)


def test_a_password_in_the_endpoint_is_not_shown(hub: LocalHub) -> None:
    endpoint = hub.url.replace("http://", "http://me:passw0rd@")
    with pytest.raises(HubError, match="does not exist") as caught:
        HuggingFaceHub(endpoint, token=False).describe("org/typo", None)
    assert_tells_no_token(caught.value, "passw0rd")


def assert_tells_no_token(error: LlmctlError, token: str | None) -> None:
    shown = f"{error.message} {error.hint} {error.details}"
    assert token is None or token not in shown
