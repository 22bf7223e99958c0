"""OpenAI's moderations API, by its reference: results[0] has `flagged`, `categories` (true or false) and `category_scores`. A
category counts where the service flags it, or where its score reaches the threshold of model.toml. Servers that speak the same API
without scores are read too; a null is a category that the model does not judge."""

from __future__ import annotations

from app.errors import GuardError
from app.guards.formats.asking import Opinion, Request, checked, document, scores, whole
from app.modelfile import GuardFile
from app.types import Direction


class Moderations:
    """omni-moderation-latest, and what imitates it."""

    def requests(self, text: str, direction: Direction, file: GuardFile) -> tuple[Request]:
        body = {"input": text} | ({"model": file.model} if file.model else {})
        return (Request("moderations", text, body=body),)

    def read(self, said: bytes, asked: Request, file: GuardFile) -> Opinion:
        results = checked(document(said).get("results"), list)
        if len(results) != 1:
            raise GuardError("garbage")
        result = checked(results[0], dict)
        flagged = checked(result.get("flagged"), bool)
        categories = checked(result.get("categories"), dict)
        given = checked(result.get("category_scores", {}), dict)
        named = {label for label, yes in categories.items() if yes is not None and checked(yes, bool)}
        scored = scores({label: score for label, score in given.items() if score is not None})
        whole(scored.keys() | {label for label, yes in categories.items() if yes is not None}, file)
        opinion = {label: score for label, score in scored.items() if label in named or score >= file.threshold}
        opinion |= {label: 1.0 for label in named if label not in scored}
        if flagged and not opinion:
            raise GuardError("garbage")
        return opinion
