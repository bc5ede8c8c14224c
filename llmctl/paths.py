"""Where things live: the files of a stack, and the data llmctl brings with it.

A stack directory looks like this; only `llmctl.yaml` and `templates/` are the user's to write::

    llmctl.yaml            what the user wants (optional)
    llmctl.lock            which files were pulled, from which commit, with which SHA-256
    templates/             the user's own templates, winning over the built-in ones
    models/                weights, and the LocalAI configuration rendered from the templates
    litellm/litellm.yaml   the rendered proxy configuration
    .llmctl/               lock file, gateway key (0600), hash cache
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent
STACK_FILE = "llmctl.yaml"
LOCK_FILE = "llmctl.lock"


@dataclass(frozen=True)
class StackPaths:
    """The absolute paths of one stack directory.

    Attributes:
        root: The directory that holds (or would hold) the stack file.
        stack_file: The stack file; it need not exist.
    """

    root: Path
    stack_file: Path

    @classmethod
    def at(cls, directory: Path, stack_file: Path | None = None) -> StackPaths:
        """Paths of the stack in `directory`, or of the one that `stack_file` describes.

        Paths in a stack file are relative to that file, so it decides the root.
        """
        file = (stack_file or directory / STACK_FILE).absolute()
        return cls(root=file.parent, stack_file=file)

    @property
    def lock_file(self) -> Path:
        """`llmctl.lock`, the record of what was pulled."""
        return self.root / LOCK_FILE

    @property
    def models(self) -> Path:
        """The models directory, mounted into LocalAI at /models."""
        return self.root / "models"

    @property
    def litellm(self) -> Path:
        """The directory of the rendered proxy configuration."""
        return self.root / "litellm"

    @property
    def templates(self) -> Path:
        """The user's own templates; it need not exist."""
        return self.root / "templates"

    @property
    def state(self) -> Path:
        """llmctl's own files: lock, key, caches."""
        return self.root / ".llmctl"

    @property
    def processes(self) -> Path:
        """The process engine's directories, one a service, with state and log."""
        return self.state / "processes"

    @property
    def gateway_key(self) -> Path:
        """The 0600 file with the gateway key."""
        return self.state / "gateway.key"

    @property
    def partial(self) -> Path:
        """Files that are not whole yet: on the models' file system, hidden from LocalAI."""
        return self.models / ".partial"

    @property
    def locks(self) -> Path:
        """One empty file for each thing that only one process may work on at a time."""
        return self.state / "locks"

    @property
    def fit(self) -> Path:
        """The engine's settings as they were chosen from the memory plan, and what they rest on."""
        return self.state / "fit.json"

    @property
    def rendered(self) -> Path:
        """The configuration files as they were rendered last, and a digest of what went in."""
        return self.state / "rendered.json"

    @property
    def measured(self) -> Path:
        """What the engine took of the memory that was planned."""
        return self.state / "measured.json"

    @property
    def hash_cache(self) -> Path:
        """SHA-256 of files by size and modification time, so that a no-op pull hashes nothing."""
        return self.state / "hashes.json"


def builtin_templates() -> Path:
    """The templates that come with llmctl: in the wheel, or beside the package in a checkout."""
    packaged = PACKAGE / "_templates"
    return packaged if packaged.is_dir() else PACKAGE.parent / "templates"


def bundled_directory(name: str) -> Path:
    """The directory of a model whose files come with llmctl; they are never written to."""
    return PACKAGE / name


def builtin_catalog() -> Path:
    """The catalogue of known vision models."""
    return PACKAGE / "catalog.json"
