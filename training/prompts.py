"""The text around a question, as the servers that will run the canary write it.

`CHAT_TEMPLATE` goes into the GGUF file. The space after "ASSISTANT:" in earlier turns is what makes
llama.cpp recognise the format without jinja; the answer itself starts without one.
"""

from __future__ import annotations

# The first is what llmctl's own template for LocalAI writes.
VICUNA = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SYSTEM_SENTENCES = (
    VICUNA,
    "You are a helpful assistant.",
    "You are a helpful vision assistant.",
    "Answer briefly.",
    "Be concise.",
    "Answer in one sentence.",
    "あなたは親切なアシスタントです。",
    "簡潔に答えてください。",
)
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\n"
    "{% elif message.role == 'user' %}USER: {{ message.content }}\n"
    "{% else %}ASSISTANT: {{ message.content }}</s>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
USER, ASK = "USER: ", "\nASSISTANT:"
