"""Categories: what each means, which provision names it, what is done about it by default. Law: data/taxonomy.json alone says so; an id
never changes its meaning.

`harm`, 0 to 9, says what a reviewer looks at first among cases that are equal otherwise (docs/adr/0028), and decides nothing: 9 children
abused, many people killed; 8 a life or a body; 7 a state, a people or a machine attacked; 6 one person exposed, shamed or hounded, a
nation's security; 5 a group degraded, the public deceived; 4 order, a name or a face; 3 property, manipulation; 2 trade and nuisance; 1
whatever nobody could name more exactly.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from app.types import Action

Profile = Literal["draft_2023_04", "interim_2023_08"]
"""Which text of the law applies."""
OF_WORD = {a.word: a for a in Action} | {"off": Action.PASS, "regenerate": Action.REPLACE}
"""Word of a policy or of the taxonomy -> action."""


@dataclass(frozen=True, slots=True)
class Category:
    """One row of the taxonomy. `clause` is the provision a refusal names."""

    id: str
    zh: str
    en: str
    clause: str
    origin: str
    answer: Action
    prompt: Action
    openai: tuple[str, ...]
    no_retain: bool
    counts_for_article_19: bool
    harm: int
    cite: dict[str, tuple[int, int]]
    """Profile -> (article, item; 0 = the article as a whole)."""
    law: dict[str, str]
    """Language -> the provision as a person reads it, where a text names the category that is no profile's."""

    def basis(self, profile: Profile, language: str) -> str:
        """The provision as a person reads it, of the profile's own text where that names the category."""
        if self.law:
            return self.law[language]
        source = profile if profile in self.cite else next(iter(self.cite), None)
        if source is None:
            return {"zh": "本服务的安全规则", "en": "this service's own security rules"}[language]
        article, item = self.cite[source]
        if language == "zh":
            name = {"draft_2023_04": "管理办法（征求意见稿）", "interim_2023_08": "管理暂行办法"}[source]
            return f"《生成式人工智能服务{name}》第{_NUMERAL[article]}条" + (
                f"第（{_NUMERAL[item]}）项" if item else ""
            )
        name = {"draft_2023_04": "draft Measures", "interim_2023_08": "Interim Measures"}[source]
        return f"{name} for generative AI services, Article {article}" + (f"({item})" if item else "")


_NUMERAL = {1: "一", 2: "二", 3: "三", 4: "四", 5: "五", 14: "十四", 19: "十九"}


@cache
def taxonomy() -> dict[str, Category]:
    """Every category by id, in the taxonomy's order."""
    rows = json.loads((files("app") / "data" / "taxonomy.json").read_bytes())
    return {
        row["id"]: Category(
            row["id"], row["zh"], row["en"], row["clause"], row["origin"],
            OF_WORD[row["answer"]], OF_WORD[row["prompt"]], tuple(row["openai"]),
            row["no_retain"], row["counts_for_article_19"], row["harm"], {k: tuple(v) for k, v in row["cite"].items()},
            row.get("law", {}),
        )
        for row in rows
    }  # fmt: skip
