"""Proof of sight: fresh pictures are asked about, hop by hop, in two languages."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from llmctl import http
from llmctl.core import chat, sight
from llmctl.core.capabilities import NOTHING_PROMISED, Capabilities
from llmctl.core.events import Step
from llmctl.core.picture import data_uri, two_drawings, unreadable
from llmctl.core.sight import Check, Finding, Kind
from llmctl.core.smoke_report import SmokeReport
from llmctl.errors import UnhealthyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from llmctl.core.chat import Outcome
    from llmctl.core.events import Listener
    from llmctl.core.picture import Drawing
    from llmctl.core.services import Hop

# Long enough for a colour and a shape, short enough for a model on a CPU.
MAX_TOKENS = 48
GREETING = {"en": "Say hello in one short sentence.", "ja": "短い文で挨拶してください。"}
QUESTION = {
    "en": "What is in this picture? Name its colour and its shape.",
    "ja": "この画像には何がありますか。色と形を答えてください。",
}


def run(
    hops: Sequence[Hop],
    models: Sequence[str],
    *,
    timeout: float,
    listen: Listener,
    rng: random.Random | None = None,
    require: Mapping[str, Capabilities] | None = None,
) -> SmokeReport:
    """Ask every hop for every model; a failure is reported, never raised.

    A hop where nobody listens is left at once; any other failure does not stop the rest.

    Args:
        hops: Where to ask, nearest to the model first.
        models: Names of the models to ask.
        timeout: Seconds for each answer.
        listen: Hears of each question before it is asked.
        rng: Chooses what is drawn; the system's randomness by default, so that an answer kept from
            an earlier run does not fit.
        require: What the answers of a model, by name, must say besides; see `models.capabilities`.
    """
    drawn = two_drawings(rng or random.SystemRandom())
    checks: list[Check] = []
    markers: dict[str, int] = {}
    for hop in hops:
        for model in models:
            if hop.models is not None and model not in hop.models:
                continue
            examination = _Examination(
                hop=hop,
                model=model,
                drawn=drawn,
                timeout=timeout,
                listen=listen,
                promised=(require or {}).get(model, NOTHING_PROMISED),
                markers=markers,
            )
            for check in examination.checks():
                checks.append(check)
                if check.verdict.finding is Finding.UNREACHABLE:
                    break
            if checks[-1].verdict.finding is Finding.UNREACHABLE:
                break
    return SmokeReport(tuple(checks))


@dataclass(frozen=True, kw_only=True)
class _Examination:
    """All questions to one model at one hop.

    Attributes:
        drawn: The pictures; the other settings are those of `run`.
        promised: What this model's answers must say.
        markers: By model, the tokens of a picture that are its marker's text, where that was in
            doubt. The engine's ways do not change with the hop: to ask once is enough, and an
            error provoked through the gateway would count against the engine in its routing.
    """

    hop: Hop
    model: str
    drawn: tuple[Drawing, Drawing]
    timeout: float
    listen: Listener
    promised: Capabilities
    markers: dict[str, int]

    def checks(self) -> Iterator[Check]:
        """One check after the other; a question is asked only when its check is taken."""
        first, second = self.drawn
        for language in GREETING:
            yield self._text(language)
        control = self._control("en")
        yield control
        picture = self._ask_picture("en", first)
        yield from self._settle_doubt(picture, control)
        yield self._judged(picture, control, first)
        in_japanese = self._control("ja")
        yield in_japanese
        yield self._judged(self._ask_picture("ja", second), in_japanese, second)
        yield self._judged(self._ask_picture("en", second, streaming=True), control, second)

    def _text(self, language: str) -> Check:
        asked = self._ask(Kind.TEXT, language, GREETING[language])
        return self._check(asked, sight.judge_text(asked.outcome))

    def _control(self, language: str) -> Check:
        asked = self._ask(Kind.CONTROL, language, QUESTION[language])
        return self._check(asked, sight.judge_control(asked.outcome, language, self.promised))

    def _settle_doubt(self, picture: _Asked, control: Check) -> Iterator[Check]:
        if self.model in self.markers or not sight.in_doubt(picture.outcome, control.outcome):
            return
        asked = self._ask(Kind.UNREADABLE, "en", QUESTION["en"], picture=data_uri(unreadable()))
        marker = sight.marker_tokens(asked.outcome, picture.outcome, control.outcome)
        self.markers[self.model] = marker
        yield self._check(asked, sight.judge_unreadable(asked.outcome, marker))

    def _ask_picture(self, language: str, drawing: Drawing, *, streaming: bool = False) -> _Asked:
        return self._ask(
            Kind.PICTURE,
            language,
            QUESTION[language],
            picture=drawing.data_uri(),
            streaming=streaming,
        )

    def _judged(self, asked: _Asked, control: Check, drawing: Drawing) -> Check:
        verdict = sight.judge_picture(
            asked.outcome,
            control.outcome,
            drawing,
            marker_tokens=self.markers.get(self.model, 0),
            streaming=asked.streaming,
            promised=self.promised,
        )
        rise = sight.picture_tokens(asked.outcome, control.outcome)
        return self._check(asked, verdict, drawing=drawing, picture_tokens=rise)

    def _ask(
        self,
        kind: Kind,
        language: str,
        text: str,
        *,
        picture: str | None = None,
        streaming: bool = False,
    ) -> _Asked:
        streamed = ", streamed" if streaming else ""
        self.listen(Step(f"{self.hop.name}: {self.model}: {kind}, {language}{streamed}"))
        body = chat.question(
            self.model,
            text,
            pictures=(picture,) if picture is not None else (),
            stream=streaming,
            max_tokens=MAX_TOKENS,
        )
        began = time.monotonic()
        first_token_s = answered_s = None
        outcome: Outcome
        try:
            if streaming:
                outcome, first_token_s = self._streamed(body)
            else:
                reply = http.post_json(self._url, body, key=self.hop.key, timeout=self.timeout)
                outcome = chat.read_answer(reply.status, reply.text)
                # Without the time that the client took to be imported.
                answered_s = reply.elapsed_s
        except http.StatusError as error:
            outcome = chat.read_answer(error.reply.status, error.reply.text)
        except http.UnreachableError as error:
            outcome = chat.Unanswered(_WHY.get(error.failure, "lost"), error.message)
        except UnhealthyError as error:
            # An event that is no JSON.
            outcome = chat.Refused(200, error.message)
        latency_s = time.monotonic() - began if answered_s is None else answered_s
        return _Asked(kind, language, streaming, outcome, latency_s, first_token_s)

    def _streamed(self, body: dict[str, Any]) -> tuple[Outcome, float | None]:
        events = list(http.stream_json(self._url, body, key=self.hop.key, timeout=self.timeout))
        spoken = (event.at_s for event in events if chat.piece_of(event.data))
        return chat.read_stream(event.data for event in events), next(spoken, None)

    @property
    def _url(self) -> str:
        return f"{self.hop.base_url}/chat/completions"

    def _check(
        self,
        asked: _Asked,
        verdict: sight.Verdict,
        *,
        drawing: Drawing | None = None,
        picture_tokens: int | None = None,
    ) -> Check:
        return Check(
            hop=self.hop.name,
            model=self.model,
            kind=asked.kind,
            language=asked.language,
            streaming=asked.streaming,
            verdict=verdict,
            outcome=asked.outcome,
            latency_s=asked.latency_s,
            first_token_s=asked.first_token_s,
            picture_tokens=picture_tokens,
            drawing=drawing,
        )


@dataclass(frozen=True)
class _Asked:
    """A question and its outcome; times in seconds."""

    kind: Kind
    language: str
    streaming: bool
    outcome: Outcome
    latency_s: float
    first_token_s: float | None


_WHY: dict[http.Failure, Literal["gone", "late"]] = {
    http.Failure.REFUSED: "gone",
    http.Failure.UNRESOLVED: "gone",
    http.Failure.TIMEOUT: "late",
}


def junit(report: SmokeReport) -> str:
    """The report as JUnit XML, which CI systems show; one test case a check."""
    from xml.etree import ElementTree as ET

    failures = sum(not check.ok for check in report.checks)
    suite = ET.Element(
        "testsuite",
        name="llmctl smoke-test",
        tests=str(len(report.checks)),
        failures=str(failures),
        time=f"{sum(check.latency_s for check in report.checks):.3f}",
    )
    for check in report.checks:
        streamed = " stream" if check.streaming else ""
        case = ET.SubElement(
            suite,
            "testcase",
            classname=f"{check.hop}.{check.model}",
            name=f"{check.kind} {check.language}{streamed}",
            time=f"{check.latency_s:.3f}",
        )
        if not check.ok:
            failure = ET.SubElement(case, "failure", type=str(check.verdict.finding))
            failure.set("message", _xml_safe(check.verdict.reason))
        ET.SubElement(case, "system-out").text = _xml_safe(check.answer)
    ET.indent(suite)
    return ET.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def _xml_safe(text: str) -> str:
    """XML 1.0 has no way to write most control characters, and a model may say them."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)
