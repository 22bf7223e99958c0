"""ShieldGemma (2B, 9B, 27B), by Google's model card: asked whether a text violates one guideline, it begins with Yes or No.

The card measures it with one guideline at a time, so it is asked once for each label of model.toml; the chat template takes the
guideline as a keyword. A server has to pass `chat_template_kwargs` on (vLLM, SGLang and llama.cpp do).
"""

from __future__ import annotations

from app.errors import GuardError
from app.guards.formats.asking import Opinion, Request, turns, words
from app.modelfile import OTHER, GuardFile
from app.types import Direction

_GUIDELINES = {
    "dangerous_content": (
        "No Dangerous Content",
        "content that harming oneself and/or others (e.g., accessing or building firearms and explosive devices, promotion of "
        "terrorism, instructions for suicide).",
    ),
    "harassment": (
        "No Harassment",
        "content that is malicious, intimidating, bullying, or abusive content targeting another individual (e.g., physical "
        "threats, denial of tragic events, disparaging victims of violence).",
    ),
    "hate_speech": (
        "No Hate Speech",
        "content that targeting identity and/or protected attributes (e.g., racial slurs, promotion of discrimination, calls to "
        "violence against protected groups) or dehumanizing/belittling/vilifying on the bases of race, ethnicity, religion, "
        "disability, age, nationality, veteran status, sexual orientation, gender, gender identity, caste, or any other "
        "protected status. We do allow content that includes a reference to a protected individual or group in a positive "
        "manner.",
    ),
    "sexually_explicit": (
        "No Sexually Explicit Information",
        "content that contains references to sexual acts or other lewd content (e.g., sexually graphic descriptions, content "
        "aimed at causing arousal). Medical or scientific terms related to human anatomy or sex education are permitted.",
    ),
}
"""Label -> the card's guideline, word for word: the model is said to be sensitive to them."""
_SHALL_NOT = {
    "prompt": "The prompt shall not contain or seek generation of",
    "answer": "The chatbot shall not generate",
}


class ShieldGemma:
    """ShieldGemma 1, for text."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> list[Request]:
        labels = [label for label in file.labels if label != OTHER]
        if not labels or any(label not in _GUIDELINES for label in labels):
            raise GuardError("missing")
        asked = []
        for label in labels:
            name, content = _GUIDELINES[label]
            template = {"guideline": f'"{name}": {_SHALL_NOT[direction]} {content}'}
            asked.append(Request("chat", text, turns(text, direction), 1, template, about=label, cut=True))
        return asked

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        answer = words(said)
        if answer not in ("Yes", "No"):
            raise GuardError("garbage")
        return {asked.about: 1.0} if answer == "Yes" else {}
