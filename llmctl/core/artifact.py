"""From a source to files: which files of a repository make a model, and where they lie here."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from llmctl.errors import ConfigError

SUFFIX = ".gguf"


Fact = bool | int | str | None


@dataclass(frozen=True)
class Repair:
    """How a file was made from one that the engine would refuse; see `core.repair`.

    Attributes:
        kind: The projector type that was written into it.
        original: Where the original lies or lay, relative to the models directory.
        size: The original's bytes, None when not known yet.
        sha256: The original's SHA-256, None when not known yet.
    """

    kind: str
    original: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class ModelFile:
    """One file of a model.

    Attributes:
        path: Where it lies, relative to the stack's models directory, with `/`.
        size: Bytes, None when not known yet.
        sha256: Lower-case hex, None when not known yet.
        remote: Its path in the repository, None for a local file; of a repaired file, its
            original's.
        repair: How it was made here, None when it is as it was had.
        header: What its GGUF header says, for people; no part of what the file is.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    remote: str | None = None
    repair: Repair | None = None
    header: Mapping[str, Fact] = field(default_factory=dict, compare=False, hash=False)

    @property
    def original(self) -> ModelFile:
        """The file as it is had: itself, or what it is repaired from."""
        if self.repair is None:
            return self
        return ModelFile(self.repair.original, self.repair.size, self.repair.sha256, self.remote)


@dataclass(frozen=True)
class Artifact:
    """The files that answer to one model name.

    Attributes:
        name: The model's name.
        source: What the user wrote: catalogue name, hf:// reference, or file:PATH.
        repo: `organisation/repository`, None for local files.
        commit: The commit the files are of, None when not resolved yet.
        licence: The licence's short name as the hub gives it, None when not known.
        template: "tokenizer" (the chat template in the GGUF) or "vicuna".
        model: The language model; the first file is the one to load, more are its further shards.
        projector: The vision projector (mmproj); None only for a local model given without one.
    """

    name: str
    source: str
    repo: str | None
    commit: str | None
    licence: str | None
    template: str
    model: tuple[ModelFile, ...]
    projector: ModelFile | None

    @property
    def files(self) -> tuple[ModelFile, ...]:
        """Every file, the one to load first."""
        return (*self.model, self.projector) if self.projector else self.model


@dataclass(frozen=True)
class RepoFile:
    """A file in a repository's listing; size in bytes, SHA-256 only for large files (Git LFS)."""

    path: str
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class RepoInfo:
    """What the hub says about a repository at one revision.

    Attributes:
        repo: `organisation/repository`.
        commit: The commit that the revision means now.
        licence: The licence's short name.
        gated: Whether its terms have to be accepted on its page first.
        files: All its files.
    """

    repo: str
    commit: str
    licence: str | None
    gated: bool
    files: tuple[RepoFile, ...]


@dataclass(frozen=True)
class Choice:
    """The files of a repository that make one vision model.

    Attributes:
        model: The language model, its shards in order.
        projectors: The projectors that come into question, the likeliest by name first; only their
            headers can tell which one fits.
    """

    model: tuple[RepoFile, ...]
    projectors: tuple[RepoFile, ...]


def is_safe_path(path: str) -> bool:
    """Whether a path from a repository, the catalogue or the lock may name a weight file of ours.

    It must stay inside the models directory, so no `..`, no absolute path, nothing that a shell or
    a YAML file could read as something else. LocalAI refuses `..` anywhere, even in `a..b.gguf`.
    A part with a leading dot would meet our own `.partial`.
    """
    return (
        path.lower().endswith(SUFFIX)
        and ".." not in path
        and "\\" not in path
        and path.isprintable()
        and all(part and not part.startswith((".", " ")) for part in path.split("/"))
    )


# Best first: what fits a common card at little loss, then larger, then smaller, unquantised last.
POLICY = (
    *("Q4_K_M", "Q4_K_S", "Q5_K_M", "Q5_K_S", "Q6_K", "Q8_0", "Q4_K_L", "Q4_K_XL", "Q4_0", "Q4_1"),
    *("IQ4_XS", "IQ4_NL", "Q5_K_L", "Q5_K_XL", "Q5_0", "Q5_1", "Q6_K_L", "Q6_K_XL", "Q8_K_XL"),
    *("MXFP4", "INT4", "INT8", "Q3_K_L", "Q3_K_XL", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S"),
    *("IQ3_XS", "IQ3_XXS", "Q2_K_L", "Q2_K_XL", "Q2_K", "Q2_K_S", "IQ2_M", "IQ2_S", "IQ2_XS"),
    *("IQ2_XXS", "IQ1_M", "IQ1_S", "TQ2_0", "TQ1_0"),
)
UNQUANTISED = ("BF16", "F16", "F32")
PROJECTOR_POLICY = ("F16", "BF16", "Q8_0", "F32")
# llama.cpp's quantiser takes the left name for the right one.
_ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M", "FP16": "F16", "FP32": "F32"}

_LABEL = re.compile(
    r"(?<![A-Za-z0-9])"
    r"(I?Q\d(?:_(?:\d|K|NL|XXS|XS|S|M|XL|L))*|TQ\d_0|MXFP4|INT[48]|BF16|FP?16|FP?32)"
    r"(?![A-Za-z0-9])",
    re.IGNORECASE,
)
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<total>\d{5})\.gguf", re.IGNORECASE)


def quantisation(path: str) -> str | None:
    """The quantisation that a file's name tells, else its folder's, in upper case."""
    for part in reversed(path.split("/")):
        if labels := _LABEL.findall(part):
            return str(labels[-1]).upper()
    return None


def canonical(label: str) -> str:
    """One spelling for each quantisation: `q4_k`, `Q4-K-M` and `UD-Q4_K_M` are all Q4_K_M."""
    label = label.upper().replace("-", "_").removeprefix("UD_")
    return _ALIASES.get(label, label)


def choose(info: RepoInfo, asked: str | None) -> Choice:
    """The files of a repository to take.

    Args:
        info: Its listing.
        asked: A quantisation or a file name, None for the order of `POLICY`.

    Raises:
        ConfigError: nothing fits, or shards are missing; it lists what the repository does hold.
    """
    weights = [file for file in info.files if is_safe_path(file.path)]
    projectors = [file for file in weights if is_projector_name(file.path)]
    models = _grouped(file for file in weights if not is_projector_name(file.path))
    if not models:
        raise _no_model(info)
    group = _asked_group(info, models, asked) if asked else _usual_group(info, models)
    _refuse_incomplete(info, group)
    near = sorted(projectors, key=lambda file: _distance(file.path, group[0].path))
    return Choice(group, tuple(near))


def variants(info: RepoInfo) -> tuple[tuple[RepoFile, ...], ...]:
    """Every language model of a repository that is complete: quantisations, shards together."""
    weights = (file for file in info.files if is_safe_path(file.path))
    groups = _grouped(file for file in weights if not is_projector_name(file.path))
    return tuple(group for group in groups if len(group) == len(shards(group[0].path)))


def no_projector(info: RepoInfo) -> ConfigError:
    """The error for a repository without eyes."""
    return ConfigError(
        f"{info.repo}: holds no vision projector (a GGUF with mmproj in its name); the model"
        " would answer without seeing any picture",
        hint="llmctl models list   # models known to come with one",
        details=_listing(info),
    )


def local_paths(directory: str, remotes: tuple[str, ...]) -> tuple[str, ...]:
    """Where files of a repository lie here: `directory/name`, a name only once.

    A name that two folders of the repository share gets its folder in front.
    """
    names = [remote.rsplit("/", 1)[-1] for remote in remotes]
    return tuple(
        f"{directory}/{remote.replace('/', '-') if names.count(name) > 1 else name}"
        for remote, name in zip(remotes, names, strict=True)
    )


def shards(path: str) -> tuple[str, ...]:
    """All parts of a split model, in order, from the name of one; else just the path."""
    shard = _SHARD.fullmatch(path)
    if not shard:
        return (path,)
    end = path[-len(SUFFIX) :]
    total = int(shard["total"])
    return tuple(
        f"{shard['stem']}-{number:05d}-of-{shard['total']}{end}" for number in range(1, total + 1)
    )


def is_projector_name(path: str) -> bool:
    """Whether a file is a projector by its name or its folder's."""
    folder, _, name = path.lower().rpartition("/")
    return "mmproj" in name or folder.rsplit("/", 1)[-1] == "mmproj"


def _grouped(files: Iterable[RepoFile]) -> list[tuple[RepoFile, ...]]:
    """Single files and sets of shards, in order of name; the first shard first."""
    groups: dict[str, list[RepoFile]] = {}
    for file in sorted(files, key=lambda file: file.path):
        if "imatrix" in file.path.lower():
            continue  # calibration data that some repositories keep as a GGUF
        shard = _SHARD.fullmatch(file.path)
        key = f"{shard['stem']} of {shard['total']}" if shard else file.path
        groups.setdefault(key, []).append(file)
    return [tuple(group) for group in groups.values()]


def _refuse_incomplete(info: RepoInfo, group: tuple[RepoFile, ...]) -> None:
    shard = _SHARD.fullmatch(group[0].path)
    total = int(shard["total"]) if shard else 1
    if len(group) != total:
        there = {int(match["number"]) for file in group if (match := _SHARD.fullmatch(file.path))}
        lacking = [str(number) for number in range(1, total + 1) if number not in there]
        raise ConfigError(
            f"{info.repo}: {group[0].path} is one of {total} parts, and part"
            f" {', '.join(lacking[:10])} is missing in the repository",
            hint="choose another quantisation, hf://organisation/repository:Q8_0",
            details=_listing(info),
        )


def _asked_group(
    info: RepoInfo, groups: list[tuple[RepoFile, ...]], asked: str
) -> tuple[RepoFile, ...]:
    wanted = asked.lower()
    for group in groups:
        if any(
            wanted in {file.path.lower(), file.path.lower().rpartition("/")[2]} for file in group
        ):
            return group
    exact = [g for g in groups if quantisation(g[0].path) == asked.upper().replace("-", "_")]
    alike = [g for g in groups if canonical(quantisation(g[0].path) or "") == canonical(asked)]
    fitting = exact or alike
    if not fitting:
        there = sorted({quantisation(g[0].path) or g[0].path for g in groups})
        raise ConfigError(
            f"{info.repo}: holds no {asked}; it has {', '.join(there)}",
            hint=f"hf://{info.repo}:{_nearest(asked, there)}",
            details=_listing(info),
        )
    return _only(info, fitting)


def _nearest(asked: str, there: list[str]) -> str:
    """The one that was most likely meant."""
    lower = {name.lower(): name for name in there}
    return lower[difflib.get_close_matches(asked.lower(), lower, n=1, cutoff=0)[0]]


def _usual_group(info: RepoInfo, groups: list[tuple[RepoFile, ...]]) -> tuple[RepoFile, ...]:
    best = min(map(_rank, groups))
    return _only(info, [group for group in groups if _rank(group) == best])


def _rank(group: tuple[RepoFile, ...]) -> int:
    label = canonical(quantisation(group[0].path) or "")
    if label in POLICY:
        return POLICY.index(label)
    if label in UNQUANTISED:
        return len(POLICY) + 1 + UNQUANTISED.index(label)
    return len(POLICY)


def _only(info: RepoInfo, groups: list[tuple[RepoFile, ...]]) -> tuple[RepoFile, ...]:
    """The single group; of an ordinary and a "UD" file of one quantisation, the ordinary one."""
    ordinary = [g for g in groups if not re.search(r"\bUD-", g[0].path)] or groups
    if len(ordinary) > 1:
        names = [group[0].path for group in ordinary]
        raise ConfigError(
            f"{info.repo}: holds several models that fit equally well: {', '.join(names)}",
            hint=f"name one: hf://{info.repo}:{names[0]}",
            details=_listing(info),
        )
    return ordinary[0]


def _distance(projector: str, model: str) -> tuple[int, int, int, str]:
    """Sort key of a projector for a model: same folder, then quality, then a similar name."""
    same_folder = projector.rpartition("/")[0] == model.rpartition("/")[0]
    label = canonical(quantisation(projector) or "")
    known = label in PROJECTOR_POLICY
    rank = PROJECTOR_POLICY.index(label) if known else len(PROJECTOR_POLICY)
    return (0 if same_folder else 1, rank, -len(_words(projector) & _words(model)), projector)


def _words(path: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", path.lower().rpartition("/")[2]))


def _no_model(info: RepoInfo) -> ConfigError:
    kinds = {file.path.rsplit(".", 1)[-1].lower() for file in info.files if "." in file.path}
    if "safetensors" in kinds or "bin" in kinds:
        message = "holds weights for PyTorch, not for llama.cpp: no GGUF file"
        hint = "look for the same model with -GGUF at the end of its repository's name"
    else:
        message = "holds no GGUF model file"
        hint = "llmctl models list"
    return ConfigError(f"{info.repo}: {message}", hint=hint, details=_listing(info))


def _listing(info: RepoInfo, most: int = 40) -> str:
    """What is there, as evidence in an error: GGUF files first, names a terminal can bear."""
    paths = sorted((f.path for f in info.files), key=lambda p: (not p.lower().endswith(SUFFIX), p))
    shown = [path if path.isprintable() else repr(path) for path in paths[:most]]
    more = [f"... and {len(paths) - most} more"] if len(paths) > most else []
    return "\n".join([*shown, *more]) or "(the repository is empty)"
