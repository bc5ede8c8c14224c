"""The gateway key: made once, kept in a 0600 file, handed to the proxy as a mounted file."""

from __future__ import annotations

import hashlib
import secrets

from llmctl import files
from llmctl.core.secret import Secret
from llmctl.core.stack import Stack
from llmctl.errors import ConfigError
from llmctl.paths import StackPaths


def read_key(paths: StackPaths) -> Secret | None:
    """The key in its file, None when there is none yet."""
    text = files.read_text(paths.gateway_key)
    if text is None:
        return None
    key = text.strip()
    # LiteLLM takes nothing else as a master key.
    if not key.startswith("sk-") or len(key) < 8 or not key.isprintable():  # noqa: PLR2004
        raise ConfigError(
            f"{paths.gateway_key}: is not a gateway key (one line that starts with sk-)",
            hint=f"rm {paths.gateway_key}   # the next `llmctl up` makes a new one",
        )
    return Secret(key)


def ensure_key(paths: StackPaths) -> Secret:
    """The key, generated (256 bits) when there is none."""
    key = read_key(paths)
    if key is None:
        key = Secret("sk-" + secrets.token_hex(32))
        files.write_atomic(paths.gateway_key, key.reveal() + "\n", mode=0o600)
    elif paths.gateway_key.stat().st_mode & 0o077:
        # Copied or restored with other rights: close it before it is used.
        paths.gateway_key.chmod(0o600)
    return key


def key_digest(key: Secret) -> str:
    """A digest to notice a changed key by; 64 bits of SHA-256 over 256 random bits tell nothing."""
    return hashlib.sha256(key.reveal().encode()).hexdigest()[:16]


def key_in_use(paths: StackPaths, stack: Stack) -> Secret | None:
    """The key a client must send, None for an open gateway.

    Raises:
        ConfigError: the stack needs one and none was made yet.
    """
    if not stack.needs_key:
        return None
    key = read_key(paths)
    if key is None:
        raise ConfigError(
            f"{paths.gateway_key}: there is no gateway key yet", hint="llmctl up   # makes it"
        )
    return key
