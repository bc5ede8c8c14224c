"""What a projector file (mmproj) says of itself: its kind, its width, what a picture costs.

Read off llama.cpp's tools/mtmd/clip.cpp (the copies of August and October 2026): which tensor tells
the width of what a projector puts out, how many tokens a picture becomes, and which kinds exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from llmctl.core.ggml import FILE_TYPES
from llmctl.core.gguf import GgufHeader

TYPE_KEYS = ("clip.projector_type", "clip.vision.projector_type")

# Kind -> (tensor, dimension) that tells the output's width.
_WIDTHS: Mapping[str, tuple[str, int]] = {
    "mlp": ("mm.2.weight", 1),
    "ldp": ("mm.model.mb_block.1.block.2.1.bias", 0),
    "ldpv2": ("mm.model.peg.0.bias", 0),
    "resampler": ("resampler.proj.weight", 0),
    "minicpmv4_6": ("mm.down.weight", 1),
    "adapter": ("adapter.linear.dense_4h_to_h.weight", 1),
    "minimax_m3": ("mm.merger.fc2.bias", 0),
    "janus_pro": ("mm.1.bias", 0),
    "mimovl": ("mm.2.weight", 1),
    "internvl": ("mm.model.mlp.3.weight", 1),
    "nemotron_v2_vl": ("mm.model.mlp.3.weight", 1),
    "glm4v": ("mm.down.weight", 1),
    "glm5v": ("mm.down.weight", 1),
    "gemma3": ("mm.input_projection.weight", 0),
    "gemma3nv": ("mm.input_projection.weight", 0),
    "gemma4v": ("mm.input_projection.weight", 1),
    "gemma4uv": ("mm.input_projection.weight", 1),
    **dict.fromkeys(
        ("phi4", "pixtral", "lightonocr", "dots_ocr", "dots3note_v", "muse-glimmer"),
        ("mm.2.weight", 1),
    ),
    **dict.fromkeys(
        ("lfm2", "kimivl", "paddleocr", "kimik25", "yasa2", "deepseek4v"),
        ("mm.2.weight", 1),
    ),
    **dict.fromkeys(
        ("qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o", "qwen3vl_merger"),
        ("mm.2.bias", 0),
    ),
    **dict.fromkeys(
        ("exaone4_5", "youtuvl", "ling3vl"),
        ("mm.2.bias", 0),
    ),
    **dict.fromkeys(
        ("step3vl", "idefics3", "llama4", "hunyuanvl", "deepseekocr", "deepseekocr2"),
        ("mm.model.fc.weight", 1),
    ),
}
_WITHOUT_WIDTH = ("cogvlm", "granite4_vision", "cohere2v", "d1omni_v")
_AUDIO = (
    *("gemma3na", "gemma4a", "gemma4ua", "ultravox", "qwen2a", "qwen3a", "glma", "voxtral"),
    *("meralion", "musicflamingo", "lfm2a", "granite_speech", "mimo_audio", "parakeet"),
    *("dots3note_a", "qwen3tts_spkenc", "qwen3tts_gen", "pockettts_spkenc", "pockettts_gen"),
    "d1omni_a",
)
# Added to llama.cpp between mid-August 2026 (LocalAI v4.9's) and October 2026 (xllamacpp's).
_OF_AUTUMN_2026 = frozenset(
    (
        *("deepseek4v", "dots3note_a", "dots3note_v", "glm5v", "ling3vl"),
        *("cohere2v", "d1omni_a", "d1omni_v"),
    )
)
KNOWN = frozenset((*_WIDTHS, *_WITHOUT_WIDTH, *_AUDIO))
KNOWN_TO_LOCALAI_4_9 = KNOWN - _OF_AUTUMN_2026

# Files from before projectors had a type, told by a tensor that only this kind has. A file of kind
# "mlp" with mm.3 is LLaVA's variant with norms, which llama.cpp recognises by itself.
_BY_TENSOR: tuple[tuple[str, str], ...] = (
    ("mm.model.peg.0.bias", "ldpv2"),
    ("mm.model.mb_block.1.block.2.1.bias", "ldp"),
    ("resampler.query", "resampler"),
    ("mm.0.weight", "mlp"),
)

# Kind -> side of the square of patches that becomes one token, where no key says otherwise.
_MERGES: Mapping[str, int] = {
    **dict.fromkeys(("mlp", "janus_pro", "phi4", "pixtral", "lightonocr"), 1),
    **dict.fromkeys(("ldp", "ldpv2", "adapter", "internvl", "idefics3", "llama4", "lfm2"), 2),
    **dict.fromkeys(("qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o", "qwen3vl_merger"), 2),
    **dict.fromkeys(("glm4v", "glm5v", "kimivl", "kimik25", "mimovl", "minimax_m3"), 2),
    **dict.fromkeys(("youtuvl", "exaone4_5", "ling3vl", "muse-glimmer", "nemotron_v2_vl"), 2),
    **dict.fromkeys(("dots_ocr", "dots3note_v", "paddleocr"), 2),
    **dict.fromkeys(("gemma4v", "gemma4uv"), 3),
    **dict.fromkeys(("gemma3", "step3vl", "minicpmv4_6"), 4),
}
# Kinds that see a picture at its own size -> fewest and most tokens of one picture.
_LIMITS: Mapping[str, tuple[int, int]] = {
    "lfm2": (64, 256),
    "gemma4v": (70, 1120),
    "gemma4uv": (70, 1120),
    "youtuvl": (1, 62500),
    **dict.fromkeys(("pixtral", "lightonocr", "kimivl", "kimik25"), (8, 1024)),
    **dict.fromkeys(
        ("qwen2vl_merger", "qwen2.5vl_merger", "qwen2.5o", "qwen3vl_merger", "glm4v", "mimovl"),
        (8, 4096),
    ),
}
_VOCABULARY = ("token_embd.weight", "output.weight")
_QUERIES = {2: 96}  # MiniCPM-V's version -> tokens; all later versions use 64


@dataclass(frozen=True)
class ProjectorFacts:
    """A projector's header in the terms of this project.

    Attributes:
        declared: The kind that the file states, None when it states none.
        kind: The kind it is: as declared, or recognised by its tensors.
        vision: Whether it has eyes (and not only ears).
        width: Numbers in each of its output vectors; the language model's must be the same. None
            when the kind is not known here.
        image_size: Side in pixels of the square it was made for.
        patch_size: Side in pixels of a patch.
        merge: Patches along the side of the square that becomes one token.
        tokens: Tokens of one picture (of one tile, where large pictures are cut into tiles); None
            when it depends on the picture or is not known.
        tokens_range: Fewest and most tokens where it depends on the picture.
        layers: Blocks of the vision tower.
        quantisation: How most of it is stored.
        parameters: Numbers in all tensors.
    """

    declared: str | None
    kind: str | None
    vision: bool
    width: int | None
    image_size: int | None
    patch_size: int | None
    merge: int
    tokens: int | None
    tokens_range: tuple[int, int] | None
    layers: int | None
    quantisation: str
    parameters: int

    @property
    def repair(self) -> str | None:
        """The kind that has to be written into the file before llama.cpp takes it, else None."""
        return self.kind if self.declared is None else None


def is_projector(header: GgufHeader) -> bool:
    """Whether a file is a projector and not a language model."""
    return header.values.get("general.architecture") == "clip"


def projector_facts(header: GgufHeader) -> ProjectorFacts:
    """Read a projector's header; what it does not say is None."""
    shapes = {tensor.name: tensor.shape for tensor in header.tensors}
    declared = next((text for key in TYPE_KEYS if (text := header.word(key))), None)
    vision = any(name.startswith(("v.", "resampler.")) for name in shapes)
    kind = declared or next((kind for name, kind in _BY_TENSOR if name in shapes), None)
    image, patch = (header.integer(f"clip.vision.{k}") for k in ("image_size", "patch_size"))
    merge = _merge(header, kind)
    limits = _LIMITS.get(kind or "")
    return ProjectorFacts(
        declared=declared,
        kind=kind,
        vision=vision,
        width=_width(header, shapes, kind),
        image_size=image,
        patch_size=patch,
        merge=merge,
        tokens=None if limits else _tokens(header, kind, image, patch, merge),
        tokens_range=limits,
        layers=header.integer("clip.vision.block_count"),
        quantisation=stored_as(header),
        parameters=sum(tensor.elements for tensor in header.tensors),
    )


def stored_as(header: GgufHeader) -> str:
    """The quantisation: what `general.file_type` says, else the type of most of the bytes.

    The vocabulary's tensors do not count: they are often kept finer than all the rest.
    """
    recipe = FILE_TYPES.get(header.integer("general.file_type") or 0)
    by_type: dict[str, int] = {}
    inner = [t for t in header.tensors if t.name not in _VOCABULARY]
    for tensor in inner or header.tensors:
        by_type[tensor.type.name] = by_type.get(tensor.type.name, 0) + tensor.nbytes
    most = max(by_type, key=lambda name: by_type[name], default="?")
    # Old converters left 0 ("F32") or 1 ("F16") in files that were quantised afterwards.
    if recipe is None or (recipe in {"F32", "F16"} and most != recipe):
        return most
    return recipe


def _width(
    header: GgufHeader, shapes: Mapping[str, tuple[int, ...]], kind: str | None
) -> int | None:
    place = _WIDTHS.get(kind or "")
    if kind == "mlp" and "mm.2.weight" not in shapes:
        # With norms the last layer is mm.3; LLaVA's first version has a single layer.
        place = ("mm.3.bias", 0) if "mm.3.bias" in shapes else ("mm.0.weight", 1)
    elif kind == "mlp" and "mm.3.bias" in shapes:
        place = ("mm.3.bias", 0)
    if place is None or len(shape := shapes.get(place[0], ())) <= place[1]:
        return None
    return shape[place[1]] * (1 + (_deepstack(header) if kind == "qwen3vl_merger" else 0))


def _deepstack(header: GgufHeader) -> int:
    """Layers of the tower whose output goes along with the last one's, side by side."""
    flags = header.values.get("clip.vision.is_deepstack_layers")
    if isinstance(flags, tuple):
        return sum(map(bool, flags))
    return len({t.name.split(".")[2] for t in header.tensors if t.name.startswith("v.deepstack.")})


def _merge(header: GgufHeader, kind: str | None) -> int:
    for key in ("clip.vision.spatial_merge_size", "clip.vision.projector.scale_factor"):
        if (value := header.integer(key)) and value > 0:
            return value
    return _MERGES.get(kind or "", 1)


def _tokens(
    header: GgufHeader, kind: str | None, image: int | None, patch: int | None, merge: int
) -> int | None:
    if kind == "resampler":
        asked = header.integer("clip.minicpmv_query_num")
        return asked or _QUERIES.get(header.integer("clip.minicpmv_version") or 0, 64)
    if kind == "yasa2":
        return 64
    if kind == "gemma3nv" or not image or not patch:
        return 256 if kind == "gemma3nv" else None
    side = image // patch
    return side * side // (merge * merge)
