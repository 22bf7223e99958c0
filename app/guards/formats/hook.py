"""Sluice's own protocol, for whatever model or service an operator has. POST {"text": ..., "direction": "prompt" or "answer"} to its
URL; it answers, with status 200, one of

    {"labels": {"violence": 0.93, "self_harm": 0.01}}     a score from 0 to 1 for each label of model.toml; more labels may come
    {"flagged": true, "labels": ["violence"]}             the labels it finds harmful
    {"flagged": true}                                     harmful, and no label says of what: read as the label `flagged`
    {"flagged": false}                                    harmless by all its labels

`flagged` may stand beside scores: then the text is harmful where either says so.
"""

from __future__ import annotations

from app.errors import GuardError
from app.guards.formats.asking import Opinion, Request, checked, document, scores, whole
from app.modelfile import GuardFile
from app.types import Direction

FLAGGED = "flagged"
"""The label of a text that is flagged and no more."""


class Hook:
    """A service that speaks the above."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        return (Request("hook", text, body={"text": text, "direction": direction}),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        answer = document(said)
        if not answer or answer.keys() - {"flagged", "labels"}:
            raise GuardError("garbage")
        flagged = checked(answer["flagged"], bool) if "flagged" in answer else None
        labels = answer.get("labels", [])
        if isinstance(labels, dict):
            scored = scores(labels)
            whole(scored, file, FLAGGED)
            opinion = {label: score for label, score in scored.items() if score >= file.threshold}
        else:
            opinion = {checked(label, str): 1.0 for label in checked(labels, list)}
            if flagged is None or (opinion and not flagged):
                raise GuardError("garbage")
        return opinion or ({FLAGGED: 1.0} if flagged else {})
