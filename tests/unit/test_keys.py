"""Keys: derivation, kids, receipts, refusals and decision ids, as an operator and a client see them."""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app import clock
from app.errors import SettingsError
from app.keys import Keys, Purpose, Receipt, _hkdf, decision_id, decision_tail, decision_time, generated, verify
from tests.conftest import SECRET, WORD

OLD = "old-secret-0123456789abcdef-0123456789"
NEW = "new-secret-0123456789abcdef-0123456789"
PURPOSES: list[Purpose] = ["subject", "fingerprint", "evidence", "receipt", "refusal"]
KEYS = Keys(SECRET)
ROTATED = Keys(f"n:{NEW},o:{OLD}")
BASE32 = "abcdefghijklmnopqrstuvwxyz234567"


def receipt(keys: Keys, decision: str, app: str, *choices: str) -> str:
    """A receipt for these delivered texts."""
    made = Receipt(keys, decision, app)
    for number, text in enumerate(choices):
        made.add(number, text)
    return made.text()


# ---- the secret


@pytest.mark.parametrize(
    ("spec", "kids"),
    [
        (SECRET, ["0"]),
        (f"a:{SECRET}", ["a"]),
        (f"n:{NEW},o:{OLD}", ["n", "o"]),
        (f" n:{NEW} , o:{OLD} ", ["n", "o"]),
        (f"{'k' * 16}:{SECRET}", ["k" * 16]),
        (f"a:with:colons:{SECRET}", ["a"]),
        ("密" * 11, ["0"]),
    ],
)
def test_the_first_kid_is_the_one_that_new_values_are_made_under(spec: str, kids: list[str]) -> None:
    keys = Keys(spec)
    assert keys.kid == kids[0]
    assert list(keys.all("receipt")) == kids
    assert keys.pseudonym("app", "user").startswith(f"{kids[0]}.")


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("", "at least 32 bytes"),
        ("x" * 31, "at least 32 bytes"),
        ("a:" + "x" * 31, "at least 32 bytes"),
        (f"a:{SECRET},b:short", "at least 32 bytes"),
        (f"a:{SECRET},", "each needs its kid"),
        (f"{SECRET},{OLD}", "each needs its kid"),
        (f"a:{SECRET},{OLD}", "each needs its kid"),
        (f":{SECRET}", "1 to 16 letters or digits"),
        (f"a.b:{SECRET}", "1 to 16 letters or digits"),
        (f"{'k' * 17}:{SECRET}", "1 to 16 letters or digits"),
        (f"密:{SECRET}", "1 to 16 letters or digits"),
        (f"a:{SECRET},a:{OLD}", "stands twice"),
    ],
)
def test_a_secret_that_cannot_be_used_is_refused_without_being_shown(spec: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason) as caught:
        Keys(spec)
    assert "SLUICE_SECRET_KEY" in str(caught.value)
    assert SECRET not in str(caught.value) and OLD not in str(caught.value)


# ---- derivation


def test_derivation_is_that_of_rfc_5869() -> None:
    """Appendix A.3: SHA-256, no salt, no info; its first 32 bytes."""
    okm = "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
    assert _hkdf(b"\x0b" * 22, b"").hex() == okm
    assert _hkdf(b"\x0b" * 22, b"", 10).hex() == okm[:20]


def test_every_purpose_under_every_kid_has_a_key_of_its_own() -> None:
    derived = [ROTATED.derive(purpose, kid) for purpose in PURPOSES for kid in ("n", "o")]
    assert len(set(derived)) == 2 * len(PURPOSES)
    assert {len(key) for key in derived} == {32}
    assert ROTATED.derive("receipt") == ROTATED.derive("receipt", "n") == Keys(f"x:{NEW}").derive("receipt")
    with pytest.raises(KeyError):
        ROTATED.derive("receipt", "gone")


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=4), max_size=4), st.lists(st.text(max_size=4), max_size=4))
def test_no_two_splits_of_a_text_have_one_mac(a: list[str], b: list[str]) -> None:
    assert (KEYS.mac("evidence", *a) == KEYS.mac("evidence", *b)) == (a == b)


def test_a_mac_takes_any_text() -> None:
    assert KEYS.mac("evidence", "\ud83d") != KEYS.mac("evidence", "\ud83e")
    data = b"\x00\x00\x00\x01a\x00\x00\x00\x00"
    assert KEYS.mac("evidence", "a", "") == hmac.new(KEYS.derive("evidence"), data, hashlib.sha256).digest()[:16]


def test_a_pseudonym_links_nobody_across_apps_or_keys() -> None:
    all_ = [keys.pseudonym(app, user) for keys in (KEYS, ROTATED) for app in ("a", "b") for user in ("u", "v")]
    assert len({p.split(".")[1] for p in all_}) == 8
    assert KEYS.pseudonym("a", "u") == Keys(SECRET).pseudonym("a", "u")


# ---- receipts


@settings(max_examples=80, deadline=None)
@given(st.text(min_size=1, max_size=30), st.integers(0, 30), st.sampled_from(["a", "web"]))
def test_a_receipt_proves_the_delivered_text_however_it_was_cut(text: str, cut: int, app: str) -> None:
    decision = decision_id()
    made = Receipt(KEYS, decision, app)
    made.add(0, text[:cut])
    made.add(0, text[cut:])
    assert verify(KEYS, made.text(), decision, app)
    assert verify(KEYS, made.text(), decision, app, text)
    assert not verify(KEYS, made.text(), decision, app, text + "x")
    assert not verify(KEYS, made.text(), decision, app, "x" + text)


def test_a_receipt_proves_each_choice_and_no_mix_of_them() -> None:
    decision = decision_id()
    made = receipt(KEYS, decision, "a", "one text", "", "another")
    assert verify(KEYS, made, decision, "a", "one text") and verify(KEYS, made, decision, "a", "another")
    assert not any(verify(KEYS, made, decision, "a", t) for t in ("", "one textanother", "one", "nothing of it"))


def test_a_receipt_for_nothing_delivered_proves_the_decision_alone() -> None:
    decision = decision_id()
    made = receipt(KEYS, decision, "a")
    assert verify(KEYS, made, decision, "a")
    assert not verify(KEYS, made, decision, "a", WORD)


def test_a_receipt_proves_a_text_that_a_page_shows_in_another_width_or_case() -> None:
    decision = decision_id()
    made = receipt(KEYS, decision, "a", "Ｓａｍｐｌｅ 違禁")
    assert verify(KEYS, made, decision, "a", "sample 违禁")
    assert WORD not in receipt(KEYS, decision, "a", WORD)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_change_breaks_a_receipt(data: st.DataObject) -> None:
    decision = decision_id()
    made = receipt(ROTATED, decision, "a", WORD, "another")
    at = data.draw(st.integers(0, len(made) - 1))
    put = data.draw(st.text("abyzAZ019-_.~ é\ud800", max_size=2))
    changed = made[:at] + put + made[at + data.draw(st.integers(0, 2)) :]
    assert verify(ROTATED, changed, decision, "a") == (changed == made)


def test_a_receipt_is_of_one_decision_one_app_and_one_secret() -> None:
    decision, other = decision_id(), decision_id()
    made = receipt(KEYS, decision, "a", WORD)
    assert not verify(KEYS, made, other, "a")
    assert not verify(KEYS, made, decision, "b")
    assert not verify(Keys(OLD), made, decision, "a")
    assert not verify(KEYS, receipt(KEYS, decision, "a", "another"), decision, "a", WORD)


@pytest.mark.parametrize(
    "junk", ["", "r1", "....", "r1.0.1.-.x", "r2.0.1.-.x", "r1.\ud800.1.-.x", "r1.0.示.-.x", "x" * 10_000]
)
def test_what_is_no_receipt_verifies_nothing(junk: str) -> None:
    assert not verify(KEYS, junk, decision_id(), "a", WORD)
    assert not verify(KEYS, junk, "\ud800", "\ud800", "\ud800")


def test_a_receipt_of_an_older_kid_verifies_until_that_kid_is_gone() -> None:
    decision = decision_id()
    made = receipt(Keys(f"o:{OLD}"), decision, "a", WORD)
    assert verify(ROTATED, made, decision, "a", WORD)
    assert receipt(ROTATED, decision, "a", WORD).startswith("r1.n.")
    assert not verify(Keys(f"n:{NEW}"), made, decision, "a", WORD)
    assert not verify(Keys(f"o:{NEW}"), made, decision, "a", WORD)


# ---- decisions and refusals


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**41).map(lambda ms: ms / 1000), st.one_of(st.none(), st.binary(min_size=10, max_size=10)))
def test_a_decision_id_tells_its_time_and_its_tail(at: float, tail: bytes | None) -> None:
    clock.use(lambda: at)
    decision = decision_id(tail)
    assert len(decision) == 30 and decision.startswith("slc_") and set(decision[4:]) <= set(BASE32)
    assert decision_time(decision) == pytest.approx(at, abs=0.0015)
    assert tail is None or decision_tail(decision) == tail


def test_decision_ids_differ_within_a_millisecond() -> None:
    clock.use(lambda: 1_700_000_000.0)
    assert len({decision_id() for _ in range(500)}) == 500


@pytest.mark.parametrize("rest", ["", "a" * 25, "a" * 27, "0" * 26, "示" * 26, "ß" * 26, "=" * 26, "a" * 25 + "\ud800"])
def test_what_is_no_decision_id_has_no_time(rest: str) -> None:
    for junk in (f"slc_{rest}", f"xlc_{'a' * 26}", rest):
        for read in (decision_time, decision_tail):
            with pytest.raises(ValueError):  # noqa: PT011
                read(junk)


def test_a_refused_message_is_known_by_memory() -> None:
    keys = Keys(SECRET)
    assert not keys.refusal.known("a", WORD, set())
    keys.refusal.decision("a", WORD)
    assert keys.refusal.known("a", WORD, set())
    assert keys.refusal.known("a", "示\u200b例違禁短語", set()), "another spelling of the same message"
    assert not keys.refusal.known("a", WORD + "x", set())
    assert not keys.refusal.known("b", WORD, set())


def test_a_refused_message_is_known_elsewhere_by_the_decision_id_in_the_history() -> None:
    tail = decision_tail(Keys(f"o:{OLD}").refusal.decision("a", WORD))
    for keys in (Keys(f"o:{OLD}"), Keys(f"n:{NEW},o:{OLD}")):
        assert keys.refusal.known("a", WORD, {tail})
        assert not keys.refusal.known("a", WORD, {decision_tail(decision_id())})
        assert not keys.refusal.known("a", "another message", {tail})
        assert not keys.refusal.known("b", WORD, {tail})
    assert not Keys(f"n:{NEW}").refusal.known("a", WORD, {tail})


def test_the_memory_of_refusals_has_room_for_thousands_and_an_end() -> None:
    keys = Keys(SECRET)
    for number in range(16_385):
        keys.refusal.decision("a", str(number))
    assert not keys.refusal.known("a", "0", set())
    assert all(keys.refusal.known("a", str(n), set()) for n in (1, 9000, 16_384))


# ---- the generated secret


def test_a_generated_secret_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "data"
    previous = os.umask(0)
    try:
        secret = generated(folder)
    finally:
        os.umask(previous)
    assert (folder / "secret_key").stat().st_mode & 0o777 == 0o600
    assert folder.stat().st_mode & 0o777 == 0o700
    assert generated(folder) == secret
    assert Keys(secret).kid == "0"
    assert generated(tmp_path / "other") != secret


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o610])
def test_a_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    secret = generated(tmp_path)
    path = tmp_path / "secret_key"
    path.chmod(mode)
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        generated(tmp_path)
    assert str(path) in str(caught.value) and secret not in str(caught.value)
    path.chmod(0o400)
    assert generated(tmp_path) == secret


# ---- rotation


def test_article_11_a_status_token_opens_its_ticket_under_every_key_that_is_listed_and_no_other() -> None:
    old, new = Keys(f"o:{OLD}"), Keys(f"n:{NEW}")
    given = old.status_token("tkt_1")
    assert ROTATED.opens("tkt_1", given) and ROTATED.opens("tkt_1", ROTATED.status_token("tkt_1"))
    assert not new.opens("tkt_1", given) and not ROTATED.opens("tkt_2", given)
    for wrong in ("", given[:-1], given + "a", "密", "\udcff", "\ud800"):
        assert not ROTATED.opens("tkt_1", wrong)


def test_article_11_a_user_has_a_name_under_every_key_the_newest_first() -> None:
    old, new = Keys(f"o:{OLD}"), Keys(f"n:{NEW}")
    for of in (Keys.pseudonyms, Keys.reporters, Keys.talks):
        assert of(ROTATED, "app", "u") == of(new, "app", "u") + of(old, "app", "u")
        assert len({*of(ROTATED, "app", "u"), *of(ROTATED, "app", "v"), *of(ROTATED, "other", "u")}) == 6
    assert ROTATED.pseudonyms("app", "u")[0] == ROTATED.pseudonym("app", "u")
