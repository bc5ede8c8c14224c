"""Container images for the tests, built from parts that PyPI and Debian's archive have.

No image can be pulled where the tests run, so a root file system is unpacked from Debian packages
on the host and imported: seconds instead of a minute for debootstrap, and no network inside a
container. Where there is no apt-get, the same content goes on top of ``python:3.11-slim`` with an
ordinary build.

Each image carries a hash of everything it was made from, so building again what is there takes no
time.

    python -m tests.world.images [tiny] [localai] [litellm]    builds what is missing in the engine
    of DOCKER_HOST
"""

from __future__ import annotations

from tests.world.images.build import ensure
from tests.world.images.spec import IMAGES, LITELLM, LOCALAI, TINY

__all__ = ["IMAGES", "LITELLM", "LOCALAI", "TINY", "ensure"]
