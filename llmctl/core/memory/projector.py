"""A projector: the vision encoder beside the language model (llama.cpp's tools/mtmd)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from llmctl.core.gguf import GgufHeader
from llmctl.core.memory.facts import FlashAttention, padded
from llmctl.core.memory.keys import Keys
from llmctl.core.memory.model import HOST_ALIGNMENT
from llmctl.errors import ConfigError

# Projectors that take pictures of any size: most tokens of a picture, and those of the picture the
# buffers are reserved for at load (clip.cpp).
ANY_SIZE: dict[str, tuple[int, int]] = {
    "qwen2vl_merger": (4096, 46 * 46),
    "qwen2.5vl_merger": (4096, 46 * 46),
    "qwen3vl_merger": (4096, 46 * 46),
    "qwen2.5o": (4096, 46 * 46),
    "glm4v": (4096, 46 * 46),
    "pixtral": (1024, 256),
    "lightonocr": (1024, 256),
    "kimivl": (1024, 256),
    "kimik25": (4096, 32 * 32),
    "lfm2": (256, 256),
    "gemma4v": (1120, 256),
}
MERGE_DEFAULT = {"qwen2vl_merger": 2, "qwen2.5vl_merger": 2, "qwen3vl_merger": 2, "qwen2.5o": 2}
F32, CHANNELS = 4, 3
POOLED = {"gemma3": 4}  # patches a side that become one token


@dataclass(frozen=True)
class Projector:
    """A projector as its header describes it.

    Attributes:
        kind: `clip.projector_type`; "mlp" for files older than the key.
        weights: Bytes of its tensors.
        width: Of the encoder.
        forward: Its feed-forward width.
        heads: Attention heads.
        patches: Of a picture of fixed size, the class token included; None for any size.
        merge: Patches a side that become one token.
        most_tokens: Of a picture of any size, unless limited.
        reserved_tokens: What the engine reserves for at load, unless limited to less.
        picture: Bytes of the f32 picture a CLIP with a class token starts from, 0 for other encoders.
        windowed: Attends in windows (Qwen2.5-VL), which takes large masks.
        deepstack: Hands on intermediate layers (Qwen3-VL).
        hears: There is an audio encoder, whose buffers are not estimated.
    """

    kind: str
    weights: int
    width: int
    forward: int
    heads: int
    patches: int | None
    merge: int
    most_tokens: int
    reserved_tokens: int
    picture: int
    windowed: bool
    deepstack: bool
    hears: bool

    @classmethod
    def of(cls, header: GgufHeader) -> Projector:
        """The projector with this header.

        Raises:
            ConfigError: it is none, or a key is missing, of a wrong type or absurd.
        """
        if header.text("general.architecture") != "clip":
            raise ConfigError(
                "this GGUF is a language model, not a projector",
                hint="projectors are usually called mmproj-….gguf",
            )
        keys = Keys(header, "clip")
        names = {tensor.name for tensor in header.tensors}
        weights = sum(padded(tensor.nbytes, HOST_ALIGNMENT) for tensor in header.tensors)
        hears = keys.has("has_audio_encoder") and keys.flag("has_audio_encoder", default=False)
        kind = _kind(header, names)
        if not keys.flag("has_vision_encoder", default=not hears):
            return cls(kind, weights, 0, 0, 0, 0, 1, 0, 0, 0, False, False, hears)  # noqa: FBT003
        merge = _merge(keys, kind)
        side = keys.integer("vision.image_size", most=1 << 16)
        patch = keys.integer("vision.patch_size", most=1 << 16)
        if patch > side:
            raise ConfigError(
                f"this projector cannot be planned: clip.vision.patch_size {patch} is larger than"
                f" clip.vision.image_size {side}",
                hint="the file is damaged; download it again",
            )
        classed = "v.class_embd" in names and kind not in ANY_SIZE
        most, reserved = ANY_SIZE.get(kind, (0, 0))
        return cls(
            kind=kind,
            weights=weights,
            width=keys.integer("vision.embedding_length"),
            forward=keys.integer("vision.feed_forward_length"),
            heads=keys.integer("vision.attention.head_count"),
            patches=None if most else (side // patch) ** 2 + classed,
            merge=merge,
            most_tokens=most,
            reserved_tokens=reserved,
            picture=F32 * CHANNELS * side**2 if classed else 0,
            windowed=keys.has("vision.n_wa_pattern"),
            deepstack=any(name.startswith("v.deepstack.") for name in names),
            hears=hears,
        )

    @property
    def any_size(self) -> bool:
        """Whether the number of tokens follows from the picture, and can be limited."""
        return self.patches is None

    def picture_tokens(self, limit: int | None) -> int:
        """Tokens of the context that one picture (or one tile of it) takes at most."""
        if self.patches is not None:
            return math.isqrt(self.patches) ** 2 // self.merge**2
        return min(limit or self.most_tokens, self.most_tokens)

    def compute_bytes(self, flash_attention: FlashAttention, limit: int | None) -> int:
        """Its compute buffer.

        With a limit it is sized for the largest picture the limit allows; without one, for the picture
        the engine reserves for, and a larger picture makes it grow.
        """
        if self.patches is not None:
            patches = self.patches
        else:
            tokens = self.reserved_tokens if limit is None else self.picture_tokens(limit)
            patches = tokens * self.merge**2
        scores = F32 * patches**2 * self.heads if flash_attention == "off" else 0
        if self.picture:
            # The class token is put before the patches in a new place, which keeps the picture's apart.
            forward = F32 * patches * (max(self.forward, 2 * self.width) + 4 * self.width)
            attention = F32 * patches * 5 * self.width + scores
            return self.picture + (max(forward, attention) if scores else forward)
        wide = 6 if self.deepstack else 3
        size = F32 * patches * (self.forward + wide * self.width)
        if self.windowed:
            size += 6 * patches**2  # the window's mask, in f32 and in f16
        return size + scores


def _kind(header: GgufHeader, names: set[str]) -> str:
    for key in ("clip.projector_type", "clip.vision.projector_type"):
        if key in header.values:
            kind = header.text(key)
            if kind is None:
                raise ConfigError(f"this projector cannot be planned: the key {key} is no text")
            return kind
    if "resampler.query" in names:
        return "resampler"
    return "ldp" if any(name.startswith("mm.model.mb_block") for name in names) else "mlp"


def _merge(keys: Keys, kind: str) -> int:
    for key in ("vision.spatial_merge_size", "vision.projector.scale_factor"):
        if keys.has(key):
            return keys.integer(key, most=64)
    return MERGE_DEFAULT.get(kind) or POOLED.get(kind) or 1
