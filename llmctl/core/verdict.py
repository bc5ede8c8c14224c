"""Whether files make a vision model that works, told from their headers before they are here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from llmctl.core.artifact import Fact
from llmctl.core.language import LanguageFacts
from llmctl.core.projector import KNOWN, KNOWN_TO_LOCALAI_4_9, ProjectorFacts

Level = Literal["refuse", "warn", "note"]


@dataclass(frozen=True)
class Finding:
    """One reason.

    Attributes:
        level: "refuse": it cannot work; "warn": it may surprise; "note": llmctl takes care of it.
        code: A short name for programs.
        message: What it is and why.
        hint: What mends it, None when nothing has to be.
    """

    level: Level
    code: str
    message: str
    hint: str | None = None


@dataclass(frozen=True)
class Formats:
    """Which projectors an engine takes.

    Attributes:
        engine: The engine and its version, for people.
        kinds: The projector types it knows.
    """

    engine: str
    kinds: frozenset[str]


def formats_of(engine: str, image: str | None) -> Formats:
    """What the engine of a stack takes.

    Args:
        engine: "docker" or "process".
        image: The LocalAI image of a docker stack, None for llmctl's own choice.

    LocalAI v4.9.0 holds a llama.cpp of August 2026; another image's is not known, so it is judged
    by all that llmctl knows.
    """
    if engine == "process":
        return Formats("llama.cpp of October 2026", KNOWN)
    if image is None or ":v4.9." in image:
        return Formats("LocalAI v4.9", KNOWN_TO_LOCALAI_4_9)
    return Formats(f"the llama.cpp in {image}", KNOWN)


def judge(
    language: LanguageFacts | None,
    projector: ProjectorFacts | None,
    formats: Formats,
    *,
    vicuna: bool = False,
) -> tuple[Finding, ...]:
    """What speaks against these two, and what has to be known of them; the gravest first.

    Args:
        language: The language model, None when it could not be read.
        projector: Its projector, None when there is none.
        formats: What the engine takes.
        vicuna: Whether the stack brings a prompt format of its own.
    """
    found = list(_of_projector(projector, formats)) if projector else [_blind()]
    if language and projector:
        found += _of_pair(language, projector)
    if language and not language.chat_template and not vicuna:
        found.append(
            Finding(
                "warn",
                "no-chat-template",
                "the model file holds no chat template; the engine will guess its prompt format",
                "`template: vicuna` in llmctl.yaml, for LLaVA and its kin",
            )
        )
    elif language and language.image_marker is False and not vicuna:
        found.append(
            Finding(
                "note",
                "no-image-marker",
                "its chat template does not mention pictures; llama.cpp puts their place in front",
            )
        )
    return in_order(found)


def in_order(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """The gravest first."""
    return tuple(sorted(findings, key=lambda one: ("refuse", "warn", "note").index(one.level)))


def refused(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that say it cannot work."""
    return tuple(one for one in findings if one.level == "refuse")


def language_header(facts: LanguageFacts) -> dict[str, Fact]:
    """What the lock keeps of a language model's header."""
    kept = ("architecture", "quantisation", "parameters", "context", "layers", "width")
    return {key: getattr(facts, key) for key in kept} | {"chat_template": facts.chat_template}


def projector_header(facts: ProjectorFacts) -> dict[str, Fact]:
    """What the lock keeps of a projector's header."""
    kept = ("quantisation", "width", "image_size", "patch_size", "tokens")
    return {"projector_type": facts.kind} | {key: getattr(facts, key) for key in kept}


def _blind() -> Finding:
    return Finding(
        "refuse",
        "no-projector",
        "there is no vision projector (a GGUF with mmproj in its name): the model would answer"
        " without seeing any picture",
        "llmctl models list   # models known to come with one",
    )


def _of_projector(projector: ProjectorFacts, formats: Formats) -> Iterable[Finding]:
    if projector.kind is None:
        yield Finding(
            "refuse",
            "projector-type-missing",
            "the projector states no type, and its tensors are of none that llmctl can tell",
            "take a newer conversion of the model; llmctl models list",
        )
    elif projector.kind not in formats.kinds:
        yield Finding(
            "refuse",
            "projector-type-unknown",
            f'{formats.engine} does not know projectors of type "{projector.kind}"',
            "set a newer localai.image in llmctl.yaml"
            if projector.kind in KNOWN
            else "take another conversion of the model; for a newer type, update llmctl",
        )
    elif not projector.vision:
        yield Finding(
            "refuse",
            "projector-without-eyes",
            f'the projector ("{projector.kind}") is for sound, not for pictures',
            "take the mmproj file of a vision model",
        )
    elif projector.repair:
        yield Finding(
            "note",
            "projector-repaired",
            "the projector is from before projectors stated their type, and today's llama.cpp"
            f' refuses it; llmctl writes a copy that states "{projector.repair}"',
        )


def _of_pair(language: LanguageFacts, projector: ProjectorFacts) -> Iterable[Finding]:
    if None in (language.width, projector.width):
        yield Finding(
            "warn",
            "pair-unverified",
            "whether the projector belongs to this model cannot be told from the headers",
            "llmctl smoke-test   # proves it",
        )
    elif language.width != projector.width:
        yield Finding(
            "refuse",
            "projector-of-another-model",
            f"the projector puts out vectors of {projector.width} numbers, the language model"
            f" takes {language.width}: it belongs to another model",
            "take both files from one repository, of one model size",
        )
