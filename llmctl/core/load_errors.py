"""Why a model did not load: the engine's words, and what mends it.

The signatures are llama.cpp's and LocalAI's own messages.
"""

from __future__ import annotations

import re

OUT_OF_MEMORY = (
    r"out of memory|cudaMalloc failed|failed to allocate|unable to allocate|bad_alloc"
    r"|failed to create context|insufficient memory"
)

_SIGNATURES: tuple[tuple[str, str, str], ...] = (
    (
        r"backend not found",
        "LocalAI has no llama.cpp backend",
        "llmctl down --volumes && llmctl up   # installs the backend again",
    ),
    (
        r"unknown projector type|projector_type",
        "its projector file states no type, or one that this llama.cpp does not know",
        "llmctl models pull   # repairs what it can; then: llmctl models inspect NAME",
    ),
    (
        r"mismatch between text model.*and mmproj|n_embd.*mmproj|wrong mmproj",
        "the projector belongs to another language model",
        "llmctl models verify   # then pull the pair from one repository",
    ),
    (
        OUT_OF_MEMORY,
        "it does not fit into memory",
        "llmctl fit   # what takes the memory, and what would fit",
    ),
    (
        r"no CUDA-capable device|CUDA driver version is insufficient",
        "the GPU driver does not serve this image",
        "nvidia-smi   # is the driver recent enough? or: llmctl up --gpu none",
    ),
    (
        r"unknown model architecture",
        "this llama.cpp does not know the model's architecture",
        "set a newer localai.image in llmctl.yaml",
    ),
    (
        r"invalid magic|not a GGUF|bad GGUF|tensor .* out of bounds|corrupted or incomplete",
        "a model file is damaged",
        "llmctl models verify   # then: llmctl models pull",
    ),
    (
        r"no such file|failed to open|cannot open",
        "a model file is missing",
        "llmctl models pull",
    ),
    (
        r"cooldown",
        "an earlier attempt failed, and LocalAI waits before the next one",
        "llmctl logs   # shows the first error",
    ),
)


def explain_load_failure(words: str, logs: str) -> tuple[str, str]:
    """(cause, next command) for a failed load.

    Args:
        words: The engine's answer.
        logs: Its last log lines, searched when the answer itself says nothing known.
    """
    for text in (words, logs):
        for pattern, cause, mend in _SIGNATURES:
            if re.search(pattern, text, re.IGNORECASE):
                return cause, mend
    return "it gave a reason llmctl does not know, see below", "llmctl logs"


def is_out_of_memory(text: str) -> bool:
    """Whether the engine's words say that memory ran out."""
    return re.search(OUT_OF_MEMORY, text, re.IGNORECASE) is not None
