"""A stand-in for LocalAI v4.9: its HTTP surface and its traps, over real llama.cpp (xllamacpp).

LocalAI's image cannot be had on a test machine, so this answers as LocalAI does, failures included:
no backend until one is installed, a closed port until start-up is over, lazy loading, a cool-down
after a failed load, pictures that are dropped without a word, templates and YAML read by Go's
rules. What it does with a prompt is real: each loaded model is a llama.cpp server in this process
on a random loopback port.

Facts about LocalAI come from its source (mudler/LocalAI); each module names the files it follows.

    python -m tests.world.localai [run] [--models DIR] [--backends DIR] [--port N]
    python -m tests.world.localai backends install llama-cpp | backends list

Variables of the stand-in itself, beside LocalAI's own: ``STANDIN_STARTUP_SECONDS`` (how long the
port stays closed, 0.5), ``STANDIN_INSTALL_SECONDS`` (how long a backend's download takes, 0),
``STANDIN_INSTALL_ERROR`` (its download fails with this text), ``STANDIN_TRUSTED_PICTURE_URLS`` (see
pictures.py), ``STANDIN_MAX_THREADS`` (see engine.py).
"""
