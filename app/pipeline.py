"""The whole pipeline without a gateway: what `sluice check` and `sluice eval` put texts through.

Law: the detectors, the policy and the scorer that serve, in the machine that serves (app.streaming.Channel); no live entries, no
network, nothing written.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from app import policy
from app.detectors import classifier, readers, shipped
from app.detectors.blocklist import Blocklist
from app.detectors.lexicon import Lexicon, cues, load, phrases
from app.detectors.rules import Rules
from app.detectors.rules import load as load_rules
from app.moderation import Moderator, conclude
from app.settings import Settings
from app.types import Scope, Verdict


class Screened(NamedTuple):
    """What came of a text."""

    verdict: Verdict
    released: list[str]
    """After every piece, and at the end."""
    scoring: float
    """Seconds that scorers took."""


def moderator(conf: Settings) -> Moderator:
    """What the settings name. Raises LexiconError, PolicyError; a scorer that cannot be loaded fails at every look."""
    lexicon = Lexicon(load(conf.lexicons), phrases(conf.lexicons), cues(conf.lexicons))
    blocklist = Blocklist()
    detectors = shipped(lexicon, blocklist, Rules(load_rules(conf.lexicons)))
    scorer = classifier.tried(conf.models)
    return Moderator(detectors, policy.load(conf.policy), readers(lexicon, blocklist), [scorer])


def screened(moderator: Moderator, pieces: Iterable[str], scope: Scope) -> Screened:
    """Put a text through that arrives in these pieces."""
    rules = moderator.policies.common
    channel = moderator.channel(scope, rules)
    released = [channel.push(piece) for piece in pieces]
    released.append(channel.finish())
    return Screened(conclude([channel], rules, scope), released, channel.scoring)
