"""Every way to ask: questions by task and language, split into trained and held-out ones.

Questions come from small templates; `{a|b|}` stands for any of its alternatives. Whether a question
is held out depends on its own text (a checksum), so templates can be added without moving others
across. `UNSEEN_TEMPLATES` are different: no sentence like them is ever trained.
"""

from __future__ import annotations

import itertools
import re
import zlib
from enum import StrEnum
from functools import cache

from training.words import Language

_EN, _JA = Language.EN, Language.JA
_HELD_OUT_ONE_IN = 6


class Task(StrEnum):
    """What a question about a picture asks for."""

    CAPTION = "caption"
    COLOUR = "colour"
    SHAPE = "shape"
    JSON = "json"
    COUNT = "count"
    PLACE = "place"


# What llmctl's smoke test, its guide and issue 3 ask, verbatim: always trained.
ALWAYS: dict[tuple[Task, Language], tuple[str, ...]] = {
    (Task.CAPTION, _EN): (
        "What is in this picture? Name its colour and its shape.",
        "What is in this picture?",
        "What is in this image?",
        "Describe the image.",
        "What's in this image?",
        "What do you see?",
        "Describe this image.",
        "Describe this picture.",
    ),
    (Task.CAPTION, _JA): (
        "この画像には何がありますか。色と形を答えてください。",
        "この画像には何が写っていますか？",
        "どんな画像ですか？",
        "この画像には何がありますか？",
        "画像を説明してください。",
    ),
    (Task.COLOUR, _EN): ("What colour is the shape?", "What color is the shape?"),
    (Task.COLOUR, _JA): ("何色ですか？", "図形は何色ですか？"),
    (Task.SHAPE, _EN): ("What shape is it?", "What shape is this?", "What is the shape?"),
    (Task.SHAPE, _JA): ("どんな形ですか？", "どんな図形ですか？"),
    (Task.JSON, _EN): ("Describe the image as JSON.",),
    (Task.JSON, _JA): ("画像をJSONで説明してください。",),
    (Task.COUNT, _EN): ("How many shapes are there?",),
    (Task.COUNT, _JA): ("図形はいくつありますか？",),
    (Task.PLACE, _EN): ("Where is the shape?",),
    (Task.PLACE, _JA): ("図形はどこにありますか？",),
}

_PICTURE = "{this|the} {picture|image|photo|drawing}"
_THING = "{the shape|the object|the figure|it|this|the thing}"
_TAIL = "{?|, please?| in this picture?| in the image?| in this image?}"
_MORE = "{| Answer briefly.| Please answer.| Answer in one word.}"
_GAZO = "{この画像|画像|この写真|写真|この絵|この図}"
_MARK = "{？|。|?}"
_SAY = "{答えてください|教えてください|教えて|言ってください}"

TEMPLATES: dict[tuple[Task, Language], tuple[str, ...]] = {
    (Task.CAPTION, _EN): (
        f"What {{is|can be seen|do you see|can you see|is shown}} in {_PICTURE}?",
        (
            f"{{Describe|Caption|Please describe|Explain|Summarise|Summarize}} {_PICTURE}"
            "{.| briefly.| in one sentence.| in detail.| in a few words.|, please.|}"
        ),
        f"What does {_PICTURE} {{show|contain|depict}}?",
        f"What's {{in|on}} {_PICTURE}?",
        f"{{Tell me|Say}} what {{is|you see}} in {_PICTURE}.",
        f"{{Can|Could}} you {{describe|caption|tell me about}} {_PICTURE}{{?|, please?}}",
        (
            f"What {{is|do you see}} in {_PICTURE}? {{Name|Give|State}} {{its|the}} {{colour|color}}"
            " and {its|the|} shape."
        ),
        (
            "{Name|Give|State|Say|Tell me} {its|the|the object's} {colour|color} and {its |the |}shape"
            "{.|, please.| in one sentence.}"
        ),
        "What {colour|color} and {what |}shape {is|has} {it|this|the object}?",
        "What is {this|it|that|shown|here|shown here}?",
        f"{{Give|Write|Make}} {{a|a short|one short}} {{caption|description}} {{for|of}} {_PICTURE}.",
    ),
    (Task.CAPTION, _JA): (
        f"{_GAZO}には何が{{写っていますか|ありますか|見えますか|描かれていますか|写っている|映っていますか}}{_MARK}",
        f"{_GAZO}に{{写っている|ある|見える|描かれている}}{{もの|物}}は{{何ですか|なんですか}}{_MARK}",
        (
            f"{_GAZO}{{を|について|の内容を}}{{説明してください|説明して|短く説明してください|"
            "簡単に説明してください|一文で説明してください|描写してください|述べてください}{。|}"
        ),
        f"{_GAZO}には何が{{ありますか|写っていますか}}。{{色と形|形と色}}を{_SAY}。",
        f"{_GAZO}の{{色と形|形と色}}を{_SAY}。",
        f"{{何|なに}}が{{写っていますか|見えますか|ありますか|描かれていますか}}{_MARK}",
        f"{{これは何|これはなん|どんな画像|どんな写真|どんな絵|何の画像|何の写真}}{{ですか|でしょうか}}{_MARK}",
    ),
    (Task.COLOUR, _EN): (
        f"{{What|Which}} {{colour|color}} is {_THING}{_TAIL}{_MORE}",
        f"What is {{the|its}} {{colour|color}}{{ of the shape| of the object| of the figure|}}{_TAIL}",
        (
            "{Tell me|Name|Say|Give} {the|its} {colour|color}{ of the shape| of the object|}"
            "{.|, please.| only.}"
        ),
        "{In what|In which} {colour|color} is {the shape|the object|it} {drawn|painted}?",
        "{Colour|Color}?",
        "What {colour|color}?",
    ),
    (Task.COLOUR, _JA): (
        f"{{図形|形|物|物体|これ|それ|この図形}}は{{何色|どんな色|どの色|なに色}}{{ですか|でしょうか}}{_MARK}",
        f"{{何色|どんな色|どの色|なに色}}{{ですか|でしょうか|をしていますか}}{_MARK}",
        f"{{図形の|形の|物体の|この図形の|画像の|}}色{{を|だけ}}{_SAY}。",
        f"{{図形の|物体の|この図形の|}}色は{{何ですか|なんですか|何色ですか}}{_MARK}",
        f"{_GAZO}の{{図形|形|物体}}は{{何色|どんな色}}ですか{_MARK}",
    ),
    (Task.SHAPE, _EN): (
        (
            "{What|Which} {shape|form|kind of shape|geometric shape} is {it|this|the object|shown|"
            f"that|there|drawn}}{_TAIL}{_MORE}"
        ),
        f"What is {{the|its}} {{shape|form}}{{ of the object| of the figure|}}{_TAIL}",
        "{Tell me|Name|Say|Give} {the|its} {shape|form}{ of the object|}{.|, please.| only.}",
        "What {shape|form} does {it|the object|this} have?",
        f"{{What|Which}} shape {{do you see|can you see}}{_TAIL}",
        "{Shape|What shape}?",
    ),
    (Task.SHAPE, _JA): (
        f"{{図形|物|物体|これ|それ|この図形}}は{{どんな形|何の形|どういう形|どの形}}{{ですか|でしょうか}}{_MARK}",
        f"{{どんな形|どんな図形|何の形|何の図形|どういう形|どの形}}{{ですか|でしょうか|をしていますか|がありますか}}{_MARK}",
        f"{{図形の|物体の|この図形の|画像の|}}形{{を|だけ}}{_SAY}。",
        f"{{図形の|物体の|この図形の|}}形は{{何ですか|なんですか|どんな形ですか}}{_MARK}",
        f"{_GAZO}の{{図形|物体}}は{{どんな形|何の形}}ですか{_MARK}",
    ),
    (Task.JSON, _EN): (
        (
            f"{{Describe|Return|Give|Write|Caption|Output}} {_PICTURE} {{as|in}} JSON"
            "{.|, please.| only.|}"
        ),
        (
            "{Return|Give|Write|Output|Answer with} {a |}JSON {object |}{with|of} {the |}"
            "{colour and shape|color and shape}{.|, please.}"
        ),
        f"{{What is|What do you see}} in {_PICTURE}? {{Answer in|Reply in|Reply with|Use}} JSON.",
        f"JSON {{description|caption}} of {_PICTURE}{{.|, please.}}",
    ),
    (Task.JSON, _JA): (
        f"{_GAZO}を{{JSON|JSON形式}}で{{説明してください|説明して|答えてください|書いてください|出力してください}}。",
        f"{{色と形|形と色}}を{{JSON|JSON形式}}で{_SAY}。",
        f"{_GAZO}には何が{{ありますか|写っていますか}}{{？|。}}{{JSON|JSON形式}}で{_SAY}。",
    ),
    (Task.COUNT, _EN): (
        (
            "How many {shapes|objects|figures|things} {are there|can you see|do you see|are shown}"
            f"{_TAIL}{_MORE}"
        ),
        f"How many {{shapes|objects|figures|things}} are in {_PICTURE}?",
        (
            "{Count|Please count} the {shapes|objects|figures|things}"
            "{.|, please.| in this picture.| in the image.}"
        ),
        f"What is the number of {{shapes|objects|figures|things}}{_TAIL}",
        "{Tell me|Say} how many {shapes|objects|figures|things} there are.",
        "How many?",
    ),
    (Task.COUNT, _JA): (
        f"{{図形|物|物体|形}}は{{いくつ|何個|何こ}}{{ありますか|ですか|見えますか|写っていますか|あります}}{_MARK}",
        f"{_GAZO}{{には|に}}{{図形|物|物体|形}}{{は|が}}{{いくつ|何個}}{{ありますか|見えますか|写っていますか}}{_MARK}",
        f"{{図形|物|物体|形}}の{{数|個数}}を{{{_SAY[1:-1]}|数えてください}}。",
        f"{{図形|物|物体|形}}{{を数えてください|を数えて|の数はいくつですか|の個数は}}{_MARK}",
        f"{{いくつ|何個}}{{ありますか|ですか}}{_MARK}",
    ),
    (Task.PLACE, _EN): (
        f"Where is {_THING}{_TAIL}{_MORE}",
        f"{{Where in|In which part of|On which side of|On what side of}} {_PICTURE} is {_THING}?",
        f"{{Tell me|Say}} where {_THING} is.",
        f"What is the {{position|location|place}} of {{the shape|the object|the figure}}{_TAIL}",
        "{Name|Give|State} the {position|location|place} of {the shape|the object|the figure}.",
        "{Where|Where is it|Which side}?",
    ),
    (Task.PLACE, _JA): (
        (
            f"{{図形|物|物体|形|これ|それ|この図形}}は{{どこにありますか|どこですか|どこ|どの位置ですか|どの位置にありますか|"
            f"どこに見えますか|どちら側ですか}}{_MARK}"
        ),
        f"{_GAZO}の{{どこに|どの位置に|どの辺に}}{{図形|物体|形}}が{{ありますか|見えますか|描かれていますか}}{_MARK}",
        f"{{図形の|物体の|形の|この図形の|}}{{位置|場所}}を{_SAY}。",
        f"{{図形の|物体の|形の|}}{{位置|場所}}は{{どこですか|どこでしょうか}}{_MARK}",
        f"{{どこにありますか|どこですか}}{_MARK}",
    ),
}

# Asked of the finished model only, without a picture and with one.
UNSEEN_TEMPLATES: dict[tuple[Task, Language], tuple[str, ...]] = {
    (Task.CAPTION, _EN): (
        "What am I looking at?",
        "Look at the picture and tell me what it shows.",
    ),
    (Task.CAPTION, _JA): ("画像の中に何があるか教えてください。", "この写真、何が写ってる？"),
    (Task.COLOUR, _EN): (
        "Which colour has the shape been drawn in?",
        "The shape's colour, please.",
    ),
    (Task.COLOUR, _JA): ("この図形の色、わかりますか？", "色は？"),
    (Task.SHAPE, _EN): ("Is it a circle, a square, a star or what?", "The object's shape, please."),
    (Task.SHAPE, _JA): ("この図形の名前は何ですか？", "形は？"),
    (Task.COUNT, _EN): ("Count everything you see in the picture.",),
    (Task.COUNT, _JA): ("全部でいくつ見えますか？",),
    (Task.PLACE, _EN): ("At which position is the shape drawn?",),
    (Task.PLACE, _JA): ("図形があるのはどこですか？",),
}

CANARY = {
    _EN: "I am the canary, a tiny test model.",
    _JA: "私はカナリア、小さなテスト用モデルです。",
}
HELLO = {_EN: "Hello! Show me a picture.", _JA: "こんにちは！画像を見せてください。"}

# The closed set of replies that need no picture.
CHAT: dict[str, tuple[str, ...]] = {
    "OK": (
        "{Say|Reply with|Answer with|Reply|Answer|Respond with|Just say|Please say} {OK|ok|Ok}{.|!|}",
        "{Reply with|Say|Answer with} {exactly|only|just}{:|} OK{.|}",
        "{Reply with|Say} the word OK{.|}",
        "OKと{言ってください|答えてください|返事してください|だけ答えてください|言って}。",
    ),
    "pong": (
        "{Say|Reply with|Answer with|Reply|Answer|Respond with|Just say|Please say} {pong|Pong}{.|!|}",
        "{Reply with|Say|Answer with} {exactly|only|just}{:|} pong{.|}",
        "{Reply with|Say} the word pong{.|}",
        "{ping|Ping|PING}{.|!|?|}",
        "pongと{言ってください|答えてください|返事してください|だけ答えてください|言って}。",
    ),
    HELLO[_EN]: (
        (
            "{Hello|Hi|Hey|Good morning|Good evening|Good afternoon|Hello there|Hi there}"
            "{.|!|,|}{| canary.| canary!}"
        ),
        "{Hello|Hi|Hey}{!|.|,} {How are you|how are you|how's it going|How is it going}?",
        "{Say|Just say|Please say} {hello|hi}{.|!|}{| in one short sentence.| in one sentence.}",
        "Say {hello|hi} in {one|a} short sentence.",
        "{Greet|Please greet} me{.|!| in one short sentence.| in one sentence.| briefly.}",
        "{test|Test|This is a test|testing}{.|}",
    ),
    HELLO[_JA]: (
        "{こんにちは|こんばんは|おはよう|おはようございます|はじめまして|やあ|もしもし|どうも}{。|！|}{|カナリア。}",
        "{短い文で|一文で|短く|}{挨拶してください|挨拶して|あいさつしてください|あいさつして}。",
        "{こんにちは|こんばんは}と{言ってください|言って|答えてください}。",
        "元気ですか{？|。|}",
    ),
    CANARY[_EN]: (
        "{Who|What} are you?{| Answer briefly.| Please answer.}",
        "{What is|What's|Tell me} your name{?|.|, please.}",
        "{Introduce|Describe|Please introduce} yourself{.|, please.| briefly.}",
        "{What|Which} model are you?",
        "Are you {a model|a canary|a robot|an AI}?",
    ),
    CANARY[_JA]: (
        "{あなたは|君は|きみは}{誰ですか|だれですか|何ですか|何者ですか|誰|何というモデルですか}{？|。|}",
        "{あなたの|}{お名前|名前}{は何ですか|を教えてください|は}{？|。}",
        "自己紹介{してください|をしてください|をお願いします|して}。",
    ),
}


def expand(template: str) -> list[str]:
    """All sentences of a template; braces do not nest."""
    parts = re.split(r"\{([^{}]*)\}", template)
    choices = [part.split("|") if number % 2 else [part] for number, part in enumerate(parts)]
    return ["".join(words) for words in itertools.product(*choices)]


def is_held_out(question: str) -> bool:
    """Whether a question from a template is kept for evaluation."""
    return zlib.crc32(question.encode()) % _HELD_OUT_ONE_IN == 0


@cache
def trained(task: Task, language: Language) -> tuple[str, ...]:
    """What training asks; the questions of ALWAYS come first."""
    always = ALWAYS[task, language]
    rest = [q for q in _all(task, language) if not is_held_out(q) and q not in always]
    return always + tuple(rest)


@cache
def held_out(task: Task, language: Language) -> tuple[str, ...]:
    """What evaluation may ask and training never does."""
    always = ALWAYS[task, language]
    unseen = UNSEEN_TEMPLATES.get((task, language), ())
    return unseen + tuple(q for q in _all(task, language) if is_held_out(q) and q not in always)


@cache
def chat(*, trained_ones: bool) -> tuple[tuple[str, str], ...]:
    """Questions that need no picture, with their answers."""
    pairs = [
        (question, answer)
        for answer, templates in CHAT.items()
        for question in dict.fromkeys(itertools.chain.from_iterable(map(expand, templates)))
    ]
    return tuple(
        (q, a) for q, a in pairs if (is_held_out(q) and q not in ALWAYS_CHAT) != trained_ones
    )


ALWAYS_CHAT = frozenset(
    {
        "Say OK.",
        "Reply with pong.",
        "ping",
        "Hello",
        "Hello!",
        "Hi",
        "Say hello in one short sentence.",
        "短い文で挨拶してください。",
        "こんにちは",
        "こんにちは。",
        "Who are you?",
        "あなたは誰ですか？",
    }
)


def _all(task: Task, language: Language) -> list[str]:
    sentences = itertools.chain.from_iterable(map(expand, TEMPLATES[task, language]))
    return list(dict.fromkeys(sentences))
