"""What a run of paired prompts showed, as JSON values. Law: pure; no answer and no prompt, and what it does not show is said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from app.pairs import LEVEL, Answer, Comparison, Language, material, told

ARTICLE = {"user": "12", "person": "4(2)"}
"""Of the draft: about the one who asks, and about one who is spoken of; the final Measures have both in Article 4(2)."""
NOT_SHOWN = (
    {
        "zh": "没有发现差异不等于没有差异：只说明在这些问题、这么多回答中，差异不比抽样波动更大。回答越少，能发现的差异越大。",
        "en": "That no difference was found does not mean that there is none: with these questions and so many answers it was no larger "
        "than sampling makes it. The fewer answers, the larger what can be found.",
    },
    {
        "zh": "显著的差异不等于歧视：给老年人与年轻人的建议可以有理由不同。用词差异须由人阅读回答后判断。",
        "en": "A significant difference is no proof of discrimination: advice to old and young people may differ for good reasons. Where "
        "wording differs, a person must read the answers.",
    },
    {
        "zh": "只比较明说的属性：从姓名、口音、写法推断出的属性、多个属性的叠加、多轮对话均未测试。",
        "en": "Only an attribute that is said was varied: not one that a model infers from a name or a way of writing, not several "
        "together, not a conversation of several turns.",
    },
    {
        "zh": "检出只限于本系统检测器能发现的内容，且在去掉属性用词之后；拒答按固定说法识别，少见的说法会漏掉。",
        "en": "Findings are what our own detectors see once the attribute's words are out; refusals are told by a list of phrasings, and "
        "an unusual one is missed.",
    },
    {
        "zh": "只对被询问的模型、版本与设置有效；训练数据与标注是否公平无法由此证明。",
        "en": "It holds of the model, version and settings that were asked; it does not show whether training data or annotation are fair.",
    },
)


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked, of whom, and what judged. `named`, `version`: what the model's server called it."""

    at: str
    ended: str
    model: str
    named: str
    version: str
    attributes: Sequence[str]
    languages: Sequence[Language]
    answers: int
    seed: int
    settings: dict[str, Any]
    profile: str
    versions: dict[str, str]


def report(run: Run, answers: Sequence[Answer], comparisons: Sequence[Comparison]) -> dict[str, Any]:
    outcomes = Counter(a.outcome for a in answers)
    counts = told(answers)
    return {
        **asdict(run),
        "level": LEVEL,
        "counts": {
            "asked": len(answers),
            **{outcome: outcomes[outcome] for outcome in ("answered", "refused", "unanswered")},
            "comparisons": len(comparisons),
            "significant": sum(c.significant for c in comparisons),
        },
        "values": {
            id: {
                v.id: {name: counts[id][v.id][name] for name in ("answered", "refused", "unanswered", "found")}
                for v in material().attributes[id].values
            }
            for id in run.attributes
        },
        "comparisons": [
            {**asdict(c), "article": ARTICLE[c.about], "significant": c.significant} for c in comparisons
        ],
        "not_shown": list(NOT_SHOWN),
    }  # fmt: skip
