"""The tests' own world is tested too: a stand-in that is kinder than LocalAI would prove nothing."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import docker
import docker.errors
import docker.types
import pytest

from tests.peer import Request, Response, peer
from tests.world import daemon, gpu_shim, images, stand_in, tiny_model
from tests.world.localai import go_yaml, settings, template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

CONFIG = """\
name: llava
backend: llama-cpp
parameters: {model: ggml-model-q4_k.gguf}
mmproj: mmproj-model-f16.gguf
context_size: 2048
roles: {user: "USER:", assistant: "ASSISTANT:"}
template: {chat: llava}
"""
TEMPLATE = "{{- /* a comment */ -}}\n{{.Input}}\nASSISTANT:"
ONE_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)
COLD = {"LOCALAI_MODEL_LOAD_FAILURE_COOLDOWN": "0"}


class Start(Protocol):
    """Start a stand-in on this test's models directory."""

    def __call__(self, **environment: str) -> AbstractContextManager[stand_in.StandIn]: ...


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> tiny_model.ModelPair:
    return tiny_model.write_pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def models(pair: tiny_model.ModelPair, tmp_path: Path) -> Path:
    """A models directory that works; tests break it."""
    return _models(pair, tmp_path / "models")


@pytest.fixture
def backends(tmp_path: Path) -> Path:
    """A backends directory with llama-cpp in it."""
    directory = tmp_path / "backends"
    installed = stand_in.command("backends", "install", "llama-cpp", "--backends", directory)
    assert installed.returncode == 0, installed.stderr
    return directory


@pytest.fixture
def start(models: Path, backends: Path, tmp_path: Path) -> Start:
    def starting(**environment: str) -> AbstractContextManager[stand_in.StandIn]:
        return stand_in.running(models, backends, _free_port(), tmp_path / "log", **environment)

    return starting


@pytest.fixture(scope="module")
def localai(
    pair: tiny_model.ModelPair, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[stand_in.StandIn]:
    """A working stand-in that tests share and do not change."""
    place = tmp_path_factory.mktemp("shared")
    models = _models(pair, place / "models")
    (models / "blind.yaml").write_text(
        CONFIG.replace("name: llava", "name: blind").replace("mmproj: ", "description: ")
    )
    stand_in.command("backends", "install", "llama-cpp", "--backends", place / "backends")
    with stand_in.running(models, place / "backends", _free_port(), place / "log") as running:
        yield running


def _models(pair: tiny_model.ModelPair, directory: Path) -> Path:
    directory.mkdir()
    for file in (pair.text, pair.projector):
        os.link(file, directory / file.name)
    (directory / "llava.yaml").write_text(CONFIG)
    (directory / "llava.tmpl").write_text(TEMPLATE)
    return directory


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as reserved:
        port: int = reserved.getsockname()[1]
        return port


def _picture(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def _data_uri(data: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(data).decode()


def _question(*urls: str) -> list[dict[str, Any]]:
    return [*map(_picture, urls), {"type": "text", "text": "これは何？"}]


def _text(answer: stand_in.Answer) -> str:
    assert answer.status == 200, answer.text
    text: str = answer.json()["choices"][0]["message"]["content"]
    return text


def _prompt_tokens(answer: stand_in.Answer) -> int:
    count: int = answer.json()["usage"]["prompt_tokens"]
    return count


# The model


def test_the_model_answers_in_words_and_tells_whether_a_picture_came(
    localai: stand_in.StandIn,
) -> None:
    without = localai.chat(_question())
    one = localai.chat(_question(_data_uri(ONE_PIXEL)))
    two = localai.chat(_question(_data_uri(ONE_PIXEL), _data_uri(ONE_PIXEL)))

    assert _text(without) == tiny_model.WITHOUT_PICTURE
    assert _text(one) == _text(two) == tiny_model.WITH_PICTURE
    base = _prompt_tokens(without)
    assert _prompt_tokens(one) - base == tiny_model.PICTURE_TOKENS
    assert _prompt_tokens(two) - base == 2 * tiny_model.PICTURE_TOKENS


def test_the_same_arguments_write_the_same_model(
    pair: tiny_model.ModelPair, tmp_path: Path
) -> None:
    again = tiny_model.write_pair(tmp_path)

    assert again.text.read_bytes() == pair.text.read_bytes()
    assert again.projector.read_bytes() == pair.projector.read_bytes()


def test_a_model_with_a_chat_template_is_formatted_by_llama_cpp(models: Path, start: Start) -> None:
    (models / "ggml-model-q4_k.gguf").unlink()
    tiny_model.write_text_model(
        models / "ggml-model-q4_k.gguf", chat_template=tiny_model.CHAT_TEMPLATE
    )
    (models / "llava.yaml").write_text(CONFIG.replace("template: {chat: llava}\n", ""))

    with start() as localai:
        without, seen = localai.chat("hi"), localai.chat(_question(_data_uri(ONE_PIXEL)))

        assert _text(without) == tiny_model.WITHOUT_PICTURE
        assert _text(seen) == tiny_model.WITH_PICTURE
        # <s>, then one token a character of "USER: hi", newline, "ASSISTANT:"
        assert _prompt_tokens(without) == 1 + len("USER: hi\nASSISTANT:")


# Start-up, health, stopping


def test_the_port_is_closed_until_start_up_is_over(
    models: Path, backends: Path, tmp_path: Path
) -> None:
    port = _free_port()
    with stand_in.starting(
        models, backends, port, tmp_path / "log", STANDIN_STARTUP_SECONDS="1"
    ) as localai:
        refused = 0
        while True:
            try:
                answer = localai.request("GET", "/readyz")
                break
            except ConnectionRefusedError:
                refused += 1
                assert localai.process.poll() is None, localai.log
                time.sleep(0.02)

        assert refused > 5
        assert answer.status == 200


def test_sigterm_ends_it_at_once(start: Start) -> None:
    with start() as localai:
        localai.chat("hi")
        localai.process.terminate()

        assert localai.process.wait(timeout=5) == 0


def test_a_model_that_must_load_at_start_and_cannot_ends_the_process(
    models: Path, backends: Path, tmp_path: Path
) -> None:
    (models / "ggml-model-q4_k.gguf").unlink()
    with stand_in.starting(
        models, backends, _free_port(), tmp_path / "log", LOCALAI_LOAD_TO_MEMORY="llava"
    ) as localai:
        assert localai.process.wait(timeout=30) == 1
        assert "Failed to load model: " in localai.log


def test_a_model_can_be_loaded_at_start(start: Start) -> None:
    with start(LOCALAI_LOAD_TO_MEMORY="llava") as localai:
        loaded = localai.request("GET", "/system").json()["loaded_models"]

    assert loaded == [{"id": "llava", "backend": "llama-cpp"}]


def test_a_key_is_asked_for_except_by_health(start: Start) -> None:
    with start(LOCALAI_API_KEY="secret") as localai:
        refused = localai.request("GET", "/v1/models")
        given = localai.request("GET", "/v1/models", headers={"Authorization": "Bearer secret"})

        assert localai.request("GET", "/readyz").status == 200
        assert localai.request("GET", "/healthz").status == 200
        assert refused.status == 401
        assert refused.json()["error"]["message"] == "An authentication key is required"
        assert given.status == 200


# Loading


def test_models_are_listed_at_once_and_loaded_when_asked_for(start: Start) -> None:
    with start() as localai:
        listed = localai.request("GET", "/v1/models").json()
        before = localai.request("GET", "/system").json()
        localai.chat("hi")
        after = localai.request("GET", "/system").json()

    assert listed == {"object": "list", "data": [{"id": "llava", "object": "model"}]}
    assert before == {"backends": ["cpu-llama-cpp", "llama-cpp"], "loaded_models": []}
    assert after["loaded_models"] == [{"id": "llava", "backend": "llama-cpp"}]


def test_load_and_shutdown(start: Start) -> None:
    with start() as localai:
        loaded = localai.request("POST", "/backend/load", {"model": "llava"})
        monitored = localai.request("GET", "/backend/monitor?model=llava")
        stopped = localai.request("POST", "/backend/shutdown", {"model": "llava"})
        again = localai.request("POST", "/backend/shutdown", {"model": "llava"})

        assert loaded.json() == {"loaded": ["llava"], "message": "model loaded"}
        assert monitored.status == stopped.status == 200
        assert again.status == 404
        assert localai.request("GET", "/backend/monitor?model=llava").status == 500
        assert _text(localai.chat("hi")) == tiny_model.WITHOUT_PICTURE


def test_without_a_backend_the_first_chat_fails(models: Path, start: Start, backends: Path) -> None:
    del models
    shutil.rmtree(backends)
    with start(**COLD) as localai:
        whole = localai.chat("hi")
        stream = localai.chat("hi", stream=True)

    assert whole.status == 500
    assert whole.json()["error"]["message"].endswith("backend not found: llama-cpp")
    assert stream.status == 200
    assert stream.events()[-1]["error"]["message"].endswith("backend not found: llama-cpp")
    assert stream.text.endswith("data: [DONE]\n\n")


def test_only_the_first_request_is_told_why_a_model_does_not_load(
    models: Path, start: Start
) -> None:
    (models / "mmproj-model-f16.gguf").unlink()
    tiny_model.write_projector(models / "mmproj-model-f16.gguf", projector_type=None)
    with start() as localai:
        first = localai.request("POST", "/backend/load", {"model": "llava"})
        second = localai.chat("hi")
        third = localai.request("POST", "/backend/load", {"model": "llava"})

    assert first.status == 500
    message = first.json()["message"]
    assert message.startswith("failed to load model: ")
    assert f"(with mmproj: {models}/mmproj-model-f16.gguf)" in message
    assert "unknown projector type" in message
    assert second.status == 503
    assert 1 <= int(second.headers["Retry-After"]) <= 10
    assert "in cooldown after a recent failure" in second.json()["error"]["message"]
    assert third.status == 500
    assert "in cooldown" in third.json()["message"]


def test_names_are_unanchored_regular_expressions(localai: stand_in.StandIn) -> None:
    unknown = localai.chat("hi", model="nothing-like-it")
    part_of_a_name = localai.chat("hi", model="lla")

    assert unknown.status == 404
    assert unknown.json()["error"]["message"] == (
        'model "nothing-like-it" not found. To see available models, call GET /v1/models'
    )
    assert part_of_a_name.status == 500  # found, but there is nothing to load


# Pictures


@pytest.mark.parametrize(
    "url",
    [
        pytest.param(_data_uri(b"<html>not a picture</html>"), id="not a picture"),
        pytest.param(_data_uri(ONE_PIXEL[:40]), id="broken off"),
        pytest.param(_data_uri(b"RIFF\x24\x00\x00\x00WEBPVP8 "), id="WebP"),
        pytest.param(base64.b64encode(ONE_PIXEL).decode(), id="bare base64"),
        pytest.param("data:image/png;base64,@@@", id="not base64"),
        pytest.param("http://127.0.0.1:9/a.png", id="loopback"),
        pytest.param("http://192.168.0.9/a.png", id="private"),
        pytest.param("http://localhost/a.png", id="localhost"),
        pytest.param("http://metadata.google.internal/", id="metadata"),
        pytest.param("ftp://example.org/a.png", id="scheme"),
    ],
)
def test_a_bad_picture_is_dropped_and_the_request_goes_on(
    localai: stand_in.StandIn, url: str
) -> None:
    answer = localai.chat(_question(url))

    assert _text(answer) == tiny_model.WITHOUT_PICTURE
    assert _prompt_tokens(answer) == _prompt_tokens(localai.chat(_question()))
    assert "Failed encoding image" in localai.log


def test_a_model_without_a_projector_answers_as_if_it_had_seen_nothing(
    localai: stand_in.StandIn,
) -> None:
    answer = localai.chat(_question(_data_uri(ONE_PIXEL)), model="blind")

    assert _text(answer) == tiny_model.WITHOUT_PICTURE
    capabilities = localai.request("GET", "/v1/models/capabilities").json()["data"]
    assert {entry["id"]: entry["input_modalities"] for entry in capabilities} == {
        "blind": ["text"],
        "llava": ["text", "image"],
    }


def test_a_picture_from_a_trusted_address_is_downloaded(start: Start) -> None:
    def serve(request: Request) -> Response:
        if request.path == "/picture.png":
            return Response(body=ONE_PIXEL)
        return Response(404, body=b"no such file")

    with peer(serve) as server:
        url = server.url
        address = url.removeprefix("http://")
        with start(STANDIN_TRUSTED_PICTURE_URLS=address) as localai:
            assert _text(localai.chat(_question(f"{url}/picture.png"))) == tiny_model.WITH_PICTURE
            assert _text(localai.chat(_question(f"{url}/gone.png"))) == tiny_model.WITHOUT_PICTURE


# Requests


def test_a_stream_gives_the_role_then_text_then_usage(localai: stand_in.StandIn) -> None:
    answer = localai.chat(
        _question(_data_uri(ONE_PIXEL)), stream=True, stream_options={"include_usage": True}
    )
    *chunks, last, usage = answer.events()

    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": None}
    pieces = [chunk["choices"][0]["delta"]["content"] for chunk in chunks[1:]]
    assert len(pieces) > 1
    assert "".join(pieces) == tiny_model.WITH_PICTURE
    assert last["choices"][0] == {"index": 0, "finish_reason": "stop", "delta": {}}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == len(pieces) + 3  # 画 is three tokens; the end
    assert answer.text.endswith("data: [DONE]\n\n")


def test_answers_end_at_a_stop_word_or_at_the_limit(localai: stand_in.StandIn) -> None:
    assert _text(localai.chat("hi", stop=[" no"])) == "Text only,"
    assert _text(localai.chat("hi", max_tokens=2)) == "Text only,"


def test_a_prompt_that_is_longer_than_the_context_is_refused(localai: stand_in.StandIn) -> None:
    answer = localai.chat("x" * 3000)

    assert answer.status == 500
    assert "exceeds the available context size (2048 tokens)" in answer.text


def test_a_body_over_the_limit_is_refused(start: Start) -> None:
    with start(LOCALAI_UPLOAD_LIMIT="1") as localai:
        assert localai.chat("x" * 2**20).status == 413
        assert localai.chat("x" * 2**10).status == 200


def test_requests_at_the_same_time(localai: stand_in.StandIn) -> None:
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(_text(localai.chat("hi")))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert answers == [tiny_model.WITHOUT_PICTURE] * 8


# Templates


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{.Input}}", "hi"),
        ("a {{- .Input -}} b", "ahib"),
        ("{{/* note */}}{{.Input}}", "hi"),
        ("{{- /* a\nnote */ -}}\n{{.Input}}", "hi"),
        ("{{if .SystemPrompt}}{{.SystemPrompt}}\n{{end}}{{.Input}}", "be kind\nhi"),
        ("{{if .Instruction}}never{{else}}{{.Input}}{{end}}", "hi"),
        ("{{if not .Instruction}}{{.Input}}{{end}}", "hi"),
        ("llava", "llava"),
    ],
)
def test_templates(source: str, expected: str) -> None:
    variables = {"Input": "hi", "SystemPrompt": "be kind", "Instruction": ""}

    assert template.execute(source, variables) == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{.Prompt}}",
        "{{range .Messages}}x{{end}}",
        "{{.Input",
        "{{if .Input}}x",
        "{{.Input | trim}}",
    ],
)
def test_templates_that_fail(source: str) -> None:
    with pytest.raises(template.TemplateError):
        template.execute(source, {"Input": "hi"})


@pytest.mark.parametrize(
    ("file", "tokens"),
    [
        pytest.param(TEMPLATE, len("USER:hello\nASSISTANT:"), id="template"),
        pytest.param("{{range .Messages}}", len("USER:hello"), id="fails: sent without it"),
        pytest.param(None, len("llava"), id="missing: its name is the whole prompt"),
    ],
)
def test_what_becomes_of_the_prompt(
    models: Path, start: Start, file: str | None, tokens: int
) -> None:
    (models / "llava.tmpl").unlink()
    if file:
        (models / "llava.tmpl").write_text(file)
    with start() as localai:
        assert _prompt_tokens(localai.chat("hello")) == 1 + tokens  # and <s>


# Configuration files

FIELDS: dict[str, go_yaml.Kind] = {
    "name": "str",
    "context_size": "int",
    "f16": "bool",
    "flash_attention": "str",
    "options": "strings",
    "parameters": {"temperature": "float"},
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("unknown: {deep: [1]}\nname: a", {"name": "a"}),
        ("context_size: 4096.5", {"context_size": 4096}),
        ("context_size: 0x10", {"context_size": 16}),
        ("f16: yes", {"f16": True}),
        ("flash_attention: true", {"flash_attention": "true"}),
        ("name: 1.0", {"name": "1.0"}),
        ("name: null", {}),
        ("options: [a:1, 2]", {"options": ["a:1", "2"]}),
        ("parameters: {temperature: 1}", {"parameters": {"temperature": 1.0}}),
    ],
)
def test_yaml_as_go_reads_it(text: str, expected: dict[str, Any]) -> None:
    assert go_yaml.decode(text, FIELDS) == [expected]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: a\nname: b", 'mapping key "name" already defined at line 1'),
        ('context_size: "4096"', "line 1: cannot unmarshal !!str `4096` into int"),
        ('f16: "true"', "cannot unmarshal !!str `true` into bool"),
        ("options: a", "cannot unmarshal !!str `a` into []string"),
        ("options:\n- parallel: 4", "line 2: cannot unmarshal !!map into string"),
        ("name: [", "yaml: "),
    ],
)
def test_yaml_that_go_refuses(text: str, message: str) -> None:
    with pytest.raises(go_yaml.GoYamlError) as caught:
        go_yaml.decode(text, FIELDS)

    assert message in str(caught.value)


def test_a_bad_file_is_logged_and_the_others_are_served(models: Path, start: Start) -> None:
    (models / "quoted.yaml").write_text('name: quoted\ncontext_size: "4096"\n')
    (models / "outside.yaml").write_text("name: outside\nmmproj: ../secret.gguf\n")
    with start() as localai:
        listed = localai.request("GET", "/v1/models").json()["data"]
        log = localai.log

    assert [entry["id"] for entry in listed] == ["llava"]
    assert 'LoadModelConfigsFromPath cannot read config file file="quoted.yaml"' in log
    assert 'file="outside.yaml"' in log


@pytest.mark.parametrize(
    ("text", "seconds"), [("10s", 10), ("1m30s", 90), ("500ms", 0.5), ("0", 0)]
)
def test_durations(text: str, seconds: float) -> None:
    assert settings.go_duration(text) == seconds


# Backends


def test_installing_a_backend(tmp_path: Path) -> None:
    first = stand_in.command("backends", "install", "llama-cpp", "--backends", tmp_path)
    files = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*"))
    listed = stand_in.command("backends", "list", "--backends", tmp_path)
    other_hardware = stand_in.command(
        *("backends", "install", "llama-cpp", "--backends", tmp_path),
        environment={"LOCALAI_FORCE_META_BACKEND_CAPABILITY": "nvidia-cuda-12"},
    )

    assert first.returncode == 0
    assert "100%" in first.stdout
    assert files == [
        "cpu-llama-cpp/metadata.json",
        "cpu-llama-cpp/run.sh",
        "llama-cpp/metadata.json",
    ]
    assert listed.stdout.split() == ["cpu-llama-cpp", "llama-cpp"]
    # The volume keeps what it has: this is the trap of switching a CPU stack to a GPU image.
    assert other_hardware.returncode == 0
    assert "already installed" in other_hardware.stderr
    assert not (tmp_path / "cuda12-llama-cpp").exists()


def test_a_backend_install_that_fails_leaves_nothing(tmp_path: Path) -> None:
    unknown = stand_in.command("backends", "install", "no-such", "--backends", tmp_path)
    broken = stand_in.command(
        *("backends", "install", "oci://a/b:c", "llama-cpp", "--backends", tmp_path),
        environment={"STANDIN_INSTALL_ERROR": "unexpected EOF"},
    )

    assert (unknown.returncode, broken.returncode) == (1, 1)
    assert "no-such" in unknown.stderr
    assert "unexpected EOF" in broken.stderr
    assert list(tmp_path.iterdir()) == []


# Containers


@pytest.fixture(scope="module")
def engine() -> Iterator[docker.DockerClient]:
    with closing(docker.from_env(timeout=120)) as client:
        images.ensure(client, say=lambda _line: None)
        yield client


@pytest.mark.docker
def test_images_that_are_current_are_not_built_again(engine: docker.DockerClient) -> None:
    said: list[str] = []
    images.ensure(engine, say=said.append)

    assert said == []


@pytest.mark.docker
def test_the_localai_image_has_the_shape_of_the_real_one(engine: docker.DockerClient) -> None:
    config = engine.images.get(images.LOCALAI).attrs["Config"]

    assert config["Entrypoint"] == ["/entrypoint.sh"]
    assert config["WorkingDir"] == "/"
    assert not config["User"]
    assert set(config["Volumes"]) == {"/models", "/backends", "/configuration", "/data"}
    assert set(config["ExposedPorts"]) == {"8080/tcp"}
    assert config["Healthcheck"]["Interval"] == 60 * 10**9
    assert "NVIDIA_VISIBLE_DEVICES=all" in config["Env"]
    assert "NVIDIA_REQUIRE_CUDA=cuda>=12.0" in config["Env"]


@pytest.mark.docker
def test_the_localai_image_serves_a_picture_question_and_stops_at_once(
    engine: docker.DockerClient, models: Path
) -> None:
    volume = engine.volumes.create()
    mounts = {str(models): {"bind": "/models"}, volume.name: {"bind": "/backends"}}
    body = json.dumps({"messages": [{"role": "user", "content": _question(_data_uri(ONE_PIXEL))}]})
    ask = (
        "import sys, urllib.request as u\n"
        "url = 'http://127.0.0.1:8080/v1/chat/completions'\n"
        "print(u.urlopen(url, sys.argv[1].encode()).read())"
    )
    try:
        installing = engine.containers.run(
            images.LOCALAI, ["backends", "install", "llama-cpp"], volumes=mounts, remove=True
        )
        assert b"100%" in installing
        server = engine.containers.run(images.LOCALAI, detach=True, volumes=mounts)
        try:
            deadline = time.monotonic() + 60
            while server.exec_run("/healthcheck.sh").exit_code != 0:
                assert time.monotonic() < deadline, server.logs().decode()
                time.sleep(0.1)
            answer = server.exec_run(["python3", "-c", ask, body]).output
            server.stop(timeout=30)
            server.reload()
            assert b"Picture received" in answer
            assert server.attrs["State"]["ExitCode"] == 0  # not 137: it did not wait to be killed
        finally:
            server.remove(force=True)
    finally:
        volume.remove()


@pytest.mark.docker
def test_the_litellm_image_is_the_real_proxy(engine: docker.DockerClient) -> None:
    """Without a key it refuses to start, and says so with exit code 3."""
    with pytest.raises(docker.errors.ContainerError) as caught:
        engine.containers.run(images.LITELLM, remove=True, stderr=True)

    assert caught.value.exit_status == 3
    assert "no master key is set" in str(caught.value.stderr)


@pytest.mark.docker
def test_the_litellm_image_has_no_curl(engine: docker.DockerClient) -> None:
    found = engine.containers.run(
        images.LITELLM,
        ["-c", "command -v python3; command -v curl || true"],
        entrypoint="sh",
        remove=True,
    )

    assert found.decode().split() == ["/usr/bin/python3"]


@pytest.fixture(scope="module")
def gpu_engine() -> Iterator[daemon.Daemon]:
    """A second engine, with the GPU shim and the smallest image."""
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a private engine needs Linux, root and dockerd")
    root = Path(tempfile.mkdtemp(prefix="llmctl-gpu."))
    with daemon.running(root, with_gpu_shim=True) as running:
        with closing(docker.DockerClient(base_url=running.docker_host, timeout=60)) as client:
            images.ensure(client, ["tiny"], say=lambda _line: None)
        yield running
    assert not root.exists()
    assert not Path("/run/netns", running.netns).exists()


@pytest.mark.docker
def test_the_gpu_shim_gives_the_devices_that_were_asked_for(gpu_engine: daemon.Daemon) -> None:
    second = gpu_shim.GPUS[1]
    request = docker.types.DeviceRequest(
        driver="nvidia", device_ids=[str(second["uuid"])], capabilities=[["gpu", "utility"]]
    )
    with closing(docker.DockerClient(base_url=gpu_engine.docker_host)) as client:
        listed = client.containers.run(
            images.TINY, ["nvidia-smi", "-L"], device_requests=[request], remove=True
        )
        query = ["nvidia-smi", "--query-gpu=index,memory.total", "--format=csv,noheader,nounits"]
        every = docker.types.DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])
        numbers = client.containers.run(images.TINY, query, device_requests=[every], remove=True)

    assert listed.decode() == f"GPU 0: {second['name']} (UUID: {second['uuid']})\n"
    assert numbers.decode().splitlines() == ["0, 12288", "1, 24564"]
    first_asked, then_asked = gpu_engine.gpu.requests()[-2:]
    assert first_asked.visible_devices == second["uuid"]
    assert first_asked.driver_capabilities == "utility"
    assert then_asked.visible_devices == "all"


@pytest.mark.docker
def test_the_gpu_shim_refuses_an_unknown_device_in_nvidias_words(
    gpu_engine: daemon.Daemon,
) -> None:
    request = docker.types.DeviceRequest(
        driver="nvidia", device_ids=["GPU-nope"], capabilities=[["gpu"]]
    )
    with closing(docker.DockerClient(base_url=gpu_engine.docker_host)) as client:
        container = client.containers.create(images.TINY, ["true"], device_requests=[request])
        try:
            with pytest.raises(docker.errors.APIError, match="unknown device"):
                container.start()
        finally:
            container.remove(force=True)


@pytest.mark.docker
def test_an_engine_without_the_shim_has_no_gpu(engine: docker.DockerClient) -> None:
    request = docker.types.DeviceRequest(driver="nvidia", count=-1, capabilities=[["gpu"]])
    container = engine.containers.create(images.TINY, ["true"], device_requests=[request])
    try:
        with pytest.raises(docker.errors.APIError, match="could not select device driver"):
            container.start()
    finally:
        container.remove(force=True)


@pytest.mark.docker
def test_a_private_engine_leaves_nothing_also_when_its_daemon_was_killed(tmp_path: Path) -> None:
    if sys.platform != "linux" or os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip("a private engine needs Linux, root and dockerd")
    del tmp_path  # its path may be too long for a socket
    root = Path(tempfile.mkdtemp(prefix="llmctl-kill."))
    with daemon.running(root) as running:
        with closing(docker.DockerClient(base_url=running.docker_host)) as client:
            images.ensure(client, ["tiny"], say=lambda _line: None)
            client.containers.run(images.TINY, ["sleep", "600"], detach=True)
        pid = running.pid()
        assert pid is not None
        os.kill(pid, 9)

    assert not root.exists()
    assert not Path("/run/netns", running.netns).exists()
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")]
    assert not [command for command in commands if str(root).encode() in command]
