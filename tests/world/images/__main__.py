"""Command line: see the package."""

from __future__ import annotations

import argparse
import sys

import docker

from tests.world.images import IMAGES, ensure
from tests.world.images.build import ImageError


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.world.images")
    parser.add_argument("names", nargs="*", choices=[[], *IMAGES], metavar="NAME")
    wanted = parser.parse_args().names or list(IMAGES)
    client = docker.from_env(timeout=600)
    try:
        ensure(client, wanted, say=_say)
    except ImageError as error:
        sys.exit(str(error))
    finally:
        client.close()
