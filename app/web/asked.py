"""What a client asks of the gateway itself, in the field `sluice` of a request. Law: it never reaches the model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from app import metrics, strictjson
from app.attributes import stripped
from app.errors import RequestError
from app.policy import Policy
from app.policyfile import faults

FIELD = "sluice"
_CHARACTERS = 200_000


class Asked(BaseModel):
    """`references`: texts that the answer is to be checked against. `unlabelled`: without a visible label, where an agreement is
    recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    references: list[str] = Field(default=[], max_length=100)
    unlabelled: bool = False

    @field_validator("references")
    @classmethod
    def _bounded(cls, value: list[str]) -> list[str]:
        if sum(map(len, value)) > _CHARACTERS:
            raise ValueError(f"more than {_CHARACTERS} characters in all")
        return value


NOTHING = Asked()


def read(raw: bytes, policy: Policy) -> tuple[Any, Asked]:
    """A request's body as it may go on to the model, without attributes of the user (draft Measures, Article 12), and what it asks of us.
    Raises RequestError that names the field."""
    rule = policy.rules.attributes
    body, attributes = stripped(strictjson.loads(raw), rule.strip, rule.keep)
    for attribute in attributes:
        metrics.ATTRIBUTES.labels(attribute).inc()
    return body, _taken(body)


def _taken(body: Any) -> Asked:
    given = body.pop(FIELD, None) if isinstance(body, dict) else None
    if given is None:
        return NOTHING
    try:
        return Asked.model_validate(given)
    except ValidationError as e:
        where, what = faults(e)[0]
        param = ".".join(filter(None, (FIELD, where)))
        raise RequestError(f"'{param}': {what}", code="invalid_value", param=param) from None
