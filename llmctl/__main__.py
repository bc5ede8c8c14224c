"""`llmctl` and `python -m llmctl`."""

from __future__ import annotations

import gc
import sys

from llmctl import __version__


def main() -> None:
    """Run the command line and exit with its code."""
    # The commonest question of scripts is answered before anything is imported.
    if sys.argv[1:] == ["--version"]:
        print(f"llmctl {__version__}")  # noqa: T201
        return
    # Importing the SDKs makes a few hundred thousand objects and no garbage; collecting after every
    # 700 of them is a tenth of the start-up time.
    gc.set_threshold(50_000)
    from llmctl.cli.main import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
