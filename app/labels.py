"""Labels of generated content: the visible one of a text, and the metadata prepared for whoever writes it into a file. Draft Measures,
Article 16; Labelling Measures, Articles 4, 5 and 9; GB 45438-2025, Annex E.

Law: pure. The metadata is called prepared, never the file's label: a chat answer has no file, the app that exports one writes it. What
the model labelled itself stays; ours is taken out of what an app sends back, never out of what a model says.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

FIELDS = (
    "Label", "ContentProducer", "ProduceID", "ReservedCode1", "ContentPropagator", "PropagateID", "ReservedCode2",
)  # fmt: skip
GENERATED = "1"
"""Label of what is generated; 2 is perhaps, 3 suspected."""
MARK = {"zh": "\n\n〔提示〕", "en": "\n\n[Notice] "}
"""What words of ours at the end of an answer begin with."""
_PLAIN = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]*\Z")


GLYPHS = frozenset("本图片以下内容由人工智能生成合成大模型辅助制作、，。：（）") | frozenset(
    map(chr, range(0x20, 0x7F))
)
"""What the font of picture labels has (scripts/make-font)."""


def undrawable(words: str) -> list[str]:
    """Characters that the font of picture labels lacks."""
    return [ch for ch in words if ch not in GLYPHS]


def labelled(words: str) -> bool:
    """True where `words` says that a machine made it."""
    return any(w in words for w in ("人工智能", "AI")) and any(w in words for w in ("生成", "合成"))


def plain_value(value: str) -> bool:
    """True for the characters that a value may have: no space, no quotation mark, no backslash."""
    return bool(_PLAIN.match(value))


def prepared(producer: str, produce_id: str, seal: str = "", before: Mapping[str, str] | None = None) -> dict[str, str]:
    """The seven fields. `seal`: what proves that we wrote them. `before`: those that the content came with: whoever produced it stays
    named, and we are the one that passes it on."""
    if before is not None and before.get("ContentProducer") and before.get("Label") in ("1", "2", "3"):
        kept = {name: before.get(name, "") for name in FIELDS[:4]}
        return {**kept, "ContentPropagator": producer, "PropagateID": produce_id, "ReservedCode2": seal}
    return dict(zip(FIELDS, (GENERATED, producer, produce_id, seal, producer, produce_id, ""), strict=True))


def unlabelled(text: str, *shown: str) -> str:
    """A text without our labels, wherever they stand in it: a client joins the texts of an answer. `shown`: labels that there may be."""
    for label in shown:
        text = text.replace(after(label), "").replace(before(label), "")
    return text


def before(label: str) -> str:
    """The label as it stands at the start of a text."""
    return f"{label} " if label.isascii() or label[0] == "(" else label


def after(label: str) -> str:
    """The label as it stands at the end of a text."""
    return f" {label}" if label.isascii() or label[0] == "(" else label
