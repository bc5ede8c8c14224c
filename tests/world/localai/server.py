"""The HTTP surface (core/http/routes, core/http/endpoints/localai, core/http/app.go)."""

from __future__ import annotations

import json
import logging
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.world.localai import backends, chat, errors
from tests.world.localai.config import ModelConfig, ModelConfigs
from tests.world.localai.engine import Loader
from tests.world.localai.template import Templates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.world.localai.settings import Settings

log = logging.getLogger("localai")

VERSION = "v4.9.0 (stand-in)"
_PUBLIC = {"/healthz", "/readyz", "/.well-known/localai.json"}


class World:
    """What all requests share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.configs = ModelConfigs(settings.models)
        self.templates = Templates(settings.models)
        self.loader = Loader(settings)

    def serve(self) -> ThreadingHTTPServer:
        """A server that is bound and listening; the caller runs its loop."""
        handler = type("BoundHandler", (Handler,), {"world": self})
        return _Server((self.settings.host, self.settings.port), handler)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128


class Handler(BaseHTTPRequestHandler):
    """One connection. Every answer is JSON, or a stream of JSON events."""

    world: World
    protocol_version = "HTTP/1.1"
    server_version = "LocalAI-stand-in"
    timeout = 600
    # Head and body are two writes; with Nagle's algorithm the second would wait for an ACK.
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a GET."""
        self._dispatch("GET")

    def do_POST(self) -> None:
        """Answer a POST."""
        self._dispatch("POST")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        """LocalAI logs requests at info."""
        log.info("HTTP request %s", format % args)

    def _dispatch(self, method: str) -> None:
        url = urlsplit(self.path)
        try:
            body = self._body()  # read before anything is answered: the connection is kept
            self._authorize(url.path)
            match method, url.path:
                case "GET", "/healthz" | "/readyz":
                    self._send(200, {"status": "ok"})
                case "GET", "/version":
                    self._send(200, {"version": VERSION})
                case "GET", "/.well-known/localai.json":
                    self._send(200, {"version": VERSION, "endpoints": {}})
                case "GET", "/v1/models" | "/models":
                    self._send(200, self._models())
                case "GET", "/v1/models/capabilities" | "/models/capabilities":
                    self._send(200, self._capabilities())
                case "POST", "/models/reload":
                    self.world.configs.reload()
                    self._send(200, {"message": "ok"})
                case "GET", "/system":
                    self._send(200, self._system())
                case "GET", "/backends":
                    names = backends.installed(self.world.settings.backends)
                    self._send(200, [{"Name": name} for name in names])
                case "GET", "/backend/monitor":
                    self._monitor(parse_qs(url.query).get("model", [""])[0])
                case "GET", path if path.startswith("/api/backend-logs/"):
                    self._backend_log(unquote(path.rpartition("/")[2]))
                case "POST", "/backend/load":
                    self._load(body.get("model", ""))
                case "POST", "/backend/shutdown":
                    self._shutdown(body.get("model", ""))
                case "POST", "/v1/chat/completions" | "/chat/completions":
                    self._chat(body)
                case _:
                    self._send(404, errors.ApiError(404, "Resource not found").body())
        except errors.ApiError as error:
            self._send(error.status, error.body(), error.headers)

    def _body(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", "0"))
        if length > self.world.settings.upload_limit_mb * 1024 * 1024:
            self.close_connection = True
            raise errors.ApiError(413, "Request Entity Too Large")
        content = self.rfile.read(length)
        if not content:
            return {}
        try:
            body = json.loads(content)
        except ValueError as error:
            raise errors.ApiError(400, f"Syntax error: {error}") from error
        if not isinstance(body, dict):
            raise errors.ApiError(400, "Unmarshal type error: expected an object")
        return body

    def _authorize(self, path: str) -> None:
        keys = self.world.settings.api_keys
        bearer = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if keys and path not in _PUBLIC and not {bearer, self.headers.get("x-api-key")} & {*keys}:
            raise errors.unauthorized()

    def _backend_log(self, name: str) -> None:
        """pkg/model's ring buffer; empty unless LOCALAI_ENABLE_BACKEND_LOGGING is set."""
        lines = [
            {"timestamp": "2026-11-22T12:00:00Z", "stream": "stderr", "text": line}
            for model in self.world.loader.loaded()
            if model.config.name == name and self.world.settings.backend_logging
            for line in model.said.splitlines()
        ]
        self._send(200, lines)

    def _models(self) -> dict[str, Any]:
        data = [{"id": name, "object": "model"} for name in self.world.configs.names()]
        return {"object": "list", "data": data}

    def _capabilities(self) -> dict[str, Any]:
        data = []
        for name in self.world.configs.names():
            config = self.world.configs.listed(name) or ModelConfig(name)
            sees = bool(config.get("mmproj"))
            entry = {
                "id": name,
                "object": "model",
                "capabilities": ["chat", "vision"] if sees else ["chat"],
                "input_modalities": ["text", "image"] if sees else ["text"],
                "output_modalities": ["text"],
            }
            data.append(entry)
        return {"object": "list", "data": data}

    def _system(self) -> dict[str, Any]:
        loaded = self.world.loader.loaded()
        return {
            "backends": backends.installed(self.world.settings.backends),
            "loaded_models": [
                {"id": model.config.name, "backend": model.config.get("backend", "")}
                for model in loaded
            ],
        }

    def _monitor(self, name: str) -> None:
        if not name:
            raise errors.ApiError(400, "model query parameter is required")
        if name not in {model.config.name for model in self.world.loader.loaded()}:
            raise errors.ApiError(500, f"model {name} is not currently loaded")
        self._send(200, {"state": 2, "memory": {"total": 0, "breakdown": {}}})

    def _load(self, name: str) -> None:
        """Failures here have a shape of their own, and a cool-down is a 500 like any other."""
        if not name:
            self._send(400, {"message": "model is required"})
            return
        try:
            self.world.loader.get(self.world.configs.find(name))
        except errors.ApiError as error:
            self._send(500, {"message": f"failed to load model: {error}"})
        else:
            self._send(200, {"loaded": [name], "message": "model loaded"})

    def _shutdown(self, name: str) -> None:
        if not name:
            raise errors.ApiError(400, "model is required")
        if not self.world.loader.unload(name):
            raise errors.ApiError(
                404, f'model "{name}" is not loaded on this instance or on any worker node'
            )
        self._send(200, {"message": "model stopped"})

    def _chat(self, request: dict[str, Any]) -> None:
        names = self.world.configs.names()
        name = request.get("model") or (names[0] if names else "")
        config = self.world.configs.find(name)
        messages = chat.read_messages(request, self.world.settings.trusted_pictures)
        envelope = chat.Envelope(name)

        def pieces() -> Iterator[chat.Piece]:
            model = self.world.loader.get(config)
            yield from chat.answer(config, model, self.world.templates, request, messages)

        if not request.get("stream"):
            found = list(pieces())
            text = "".join(piece.text for piece in found)
            usage = next(piece.usage for piece in found if piece.usage)
            self._send(200, envelope.whole(text, usage))
            return
        wants_usage = bool((request.get("stream_options") or {}).get("include_usage"))
        self._stream(_events(pieces(), envelope, wants_usage=wants_usage))

    def _stream(self, events: Iterator[dict[str, Any]]) -> None:
        """Send events as they come. The status is 200 already: errors come inside the stream."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                self._chunk(f"data: {json.dumps(event, ensure_ascii=False)}\n\n".encode())
            self._chunk(b"data: [DONE]\n\n")
            self._chunk(b"")
        except (BrokenPipeError, ConnectionResetError):
            log.info("Client went away")
            self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def _send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body, ensure_ascii=False).encode()
        self.send_response(status, HTTPStatus(status).phrase)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)


def _events(
    pieces: Iterator[chat.Piece], envelope: chat.Envelope, *, wants_usage: bool
) -> Iterator[dict[str, Any]]:
    usage = None
    try:
        for number, piece in enumerate(pieces):
            if number == 0:
                yield envelope.chunk({"role": "assistant", "content": None})
            if piece.text:
                yield envelope.chunk({"content": piece.text})
            usage = piece.usage or usage
    except errors.ApiError as error:
        errors.log_error("Stream ended with error error=%s", error)
        yield {"error": {"code": error.status, "message": str(error), "type": "server_error"}}
        return
    yield envelope.chunk({}, finish_reason="stop")
    if wants_usage and usage:
        yield envelope.usage_chunk(usage)
