"""The world llmctl's tests run in: a private Docker Engine, images, a LocalAI stand-in over real llama.cpp, a model.

Stand-ins are here only for what cannot be had on a test machine: LocalAI's image and a GPU.
"""
