"""Commands of the stand-in, with the arguments that LocalAI's image is started with."""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import time
from pathlib import Path

from tests.world.localai import backends, errors
from tests.world.localai.server import VERSION, World
from tests.world.localai.settings import Settings

log = logging.getLogger("localai")


def main(arguments: list[str]) -> int:
    """Run one command; returns its exit code."""
    logging.basicConfig(
        level=os.environ.get("LOCALAI_LOG_LEVEL", "info").upper(),
        format="%(asctime)s %(levelname)s %(message)s",
        stream=sys.stderr,
    )
    options = _parser().parse_args(arguments or ["run"])
    settings = Settings.from_environment(os.environ)
    given = {key: vars(options)[key] for key in ("models", "backends", "port") if key in options}
    settings = dataclasses.replace(settings, **given)
    if options.command == "backends":
        return _backends(settings, options)
    return _run(settings)


def _parser() -> argparse.ArgumentParser:
    places = argparse.ArgumentParser(add_help=False)
    places.add_argument("--models", type=Path, default=argparse.SUPPRESS)
    places.add_argument("--backends", type=Path, default=argparse.SUPPRESS)
    places.add_argument("--port", type=int, default=argparse.SUPPRESS)
    parser = argparse.ArgumentParser(prog="local-ai", parents=[places])
    parser.set_defaults(command="run")
    commands = parser.add_subparsers(dest="command")
    commands.add_parser("run", parents=[places])
    verbs = commands.add_parser("backends", parents=[places]).add_subparsers(
        dest="verb", required=True
    )
    install = verbs.add_parser("install", parents=[places])
    install.add_argument("reference")
    install.add_argument("name", nargs="?")
    verbs.add_parser("list", parents=[places])
    return parser


def _backends(settings: Settings, options: argparse.Namespace) -> int:
    if options.verb == "list":
        for name in backends.installed(settings.backends):
            sys.stdout.write(f"{name}\n")
        return 0
    try:
        backends.install(settings, options.reference, options.name, _progress)
    except backends.BackendInstallError as error:
        sys.stderr.write(f"error installing backend {options.reference}: {error}\n")
        return 1
    return 0


def _progress(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def _run(settings: Settings) -> int:
    """What LocalAI does before it listens, then listen. A model that must load and fails is fatal."""
    log.info("LocalAI version: %s", VERSION)
    for name in settings.external_backends:
        try:
            backends.install(settings, name, None, _progress)
        except backends.BackendInstallError as error:
            errors.log_error("error installing external backend error=%s", error)
    world = World(settings)
    time.sleep(settings.startup_s)
    for name in settings.load_to_memory:
        try:
            world.loader.get(world.configs.find(name))
        except errors.ApiError as error:
            errors.log_error("Error running the server error=%s", error)
            return 1
    server = world.serve()
    log.info("LocalAI is started and running address=%s:%s", *server.server_address[:2])
    server.serve_forever()
    return 0
