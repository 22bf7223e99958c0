from tests.conftest import WORD, said


def test_smoke(gateway, model):
    model.script.chat("前" + WORD + "后")
    r = gateway.chat("hi", stream=True)
    assert said(r.content).startswith("前\n\n")
    assert gateway.chat("hi").json()["choices"][0]["finish_reason"] == "content_filter"
    assert gateway.journal()
