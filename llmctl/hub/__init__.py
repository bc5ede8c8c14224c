"""Edge to the model hub: the only place that knows Hugging Face's client."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmctl.hub.base import Hub


def connect_hub() -> Hub:
    """The hub of this environment (HF_ENDPOINT, HF_TOKEN, ...); no request is made yet."""
    from llmctl.hub.huggingface import HuggingFaceHub

    return HuggingFaceHub()
