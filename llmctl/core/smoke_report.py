"""All checks of one smoke test, its verdict in one line, and what to do about each failure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from llmctl.core.sight import Check, Finding, Kind


@dataclass(frozen=True)
class SmokeReport:
    """All checks of one run, in the order they were made."""

    checks: tuple[Check, ...]

    @property
    def ok(self) -> bool:
        """Whether every check passed, and there was at least one."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def verdict(self) -> str:
        """The run in one line."""
        failed = [check for check in self.checks if not check.ok]
        if not self.checks:
            return "nothing was checked"
        if not failed:
            hops = " and ".join(dict.fromkeys(check.hop for check in self.checks))
            return f"sees: all {len(self.checks)} checks passed ({hops})"
        findings = dict.fromkeys(f"{check.hop} {check.verdict.finding}" for check in failed)
        return f"{len(failed)} of {len(self.checks)} checks failed: {', '.join(findings)}"

    @property
    def hints(self) -> tuple[str, ...]:
        """What to do about the failures."""
        return advise(self.checks)

    def document(self) -> dict[str, Any]:
        """The report for JSON."""
        drawn = dict.fromkeys(check.drawing for check in self.checks if check.drawing)
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "drawn": [{"en": one.english, "ja": one.japanese} for one in drawn],
            "checks": [check.document() for check in self.checks],
            "hints": list(self.hints),
        }


def advise(checks: Iterable[Check]) -> tuple[str, ...]:
    """The next step for each failure, most telling first; a lost picture is pinned to its hop."""
    hints: dict[str, None] = {}
    by_model: dict[str, list[Check]] = {}
    for check in checks:
        by_model.setdefault(check.model, []).append(check)
    for model, of_model in by_model.items():
        hints |= dict.fromkeys(_blind_hints(model, of_model))
        for check in of_model:
            if not check.ok and (hint := _plain_hint(check)):
                hints[hint] = None
    return tuple(hints)


def _blind_hints(model: str, checks: Sequence[Check]) -> Iterable[str]:
    tested = {check.hop for check in checks if check.kind is Kind.PICTURE}
    blind = {check.hop for check in checks if check.verdict.finding is Finding.BLIND}
    if "engine" in blind:
        yield (
            f"the engine does not see: `mmproj:` in models/{model}.yaml must name the projector that"
            " belongs to the model, and the engine must have read it\n"
            "llmctl config render --diff; llmctl logs"
        )
    elif "gateway" in blind and "engine" in tested:
        yield (
            f"the gateway loses the picture: the engine sees it when `{model}` is asked directly\n"
            "llmctl config render --diff; llmctl logs litellm"
        )
    elif "gateway" in blind:
        yield "llmctl smoke-test --hop both   # asks the engine too, and names the hop that loses it"


def _plain_hint(check: Check) -> str:
    engine = check.hop == "engine"
    logs = "llmctl logs" if engine else "llmctl logs litellm"
    finding = check.verdict.finding
    if finding is Finding.ERROR and "backend not found" in check.verdict.reason:
        return "llmctl up   # puts LocalAI's backend into its volume"
    if finding is Finding.ERROR and "in cooldown" in check.verdict.reason:
        return "llmctl logs   # LocalAI waits after a failed load; the log tells why it failed"
    if finding is Finding.ERROR and is_unknown_model(check.verdict.reason):
        return f"llmctl up   # the running services do not know {check.model}"
    if finding is Finding.WRONG:
        return (
            f"{check.model} is known to answer this right: its files, template or settings are not"
            f" those it was tried with\nllmctl models verify {check.model};"
            " llmctl config render --diff"
        )
    if finding is Finding.AUTH and engine:
        return "LocalAI was given API keys (LOCALAI_API_KEY), which llmctl does not set"
    hints = {
        Finding.UNREACHABLE: "llmctl status; llmctl up   # nothing listens there",
        Finding.AUTH: "llmctl up   # the running gateway has another key than `llmctl key` prints",
        Finding.TIMEOUT: "llmctl smoke-test --timeout 900; llmctl logs   # on the CPU?",
        Finding.EMPTY: f"llmctl config render --diff   # template and stop words of {check.model}",
        Finding.ERROR: logs,
        Finding.UNPROVEN: logs,
    }
    return hints.get(finding, "")


def is_unknown_model(reason: str) -> bool:
    """LocalAI's and LiteLLM's words for a model that is not in their configuration."""
    return reason.startswith('HTTP 404: model "') or "Invalid model name passed" in reason
