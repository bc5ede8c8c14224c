"""The world that llmctl's tests run in: a private Docker Engine, images, a LocalAI, a model, a hub.

Stand-ins are here only for what cannot be had on a test machine: LocalAI's image and a GPU.
"""
