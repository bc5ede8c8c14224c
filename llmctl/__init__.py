"""llmctl: from a GPU box and a model name to a vision endpoint you can trust."""

__version__ = "0.1.0"
