"""What OpenAPI says of our routes is so: no answer is a 5xx, none is undocumented, and what a description forbids is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Model, whole_gateway


@pytest.mark.long
@pytest.mark.timeout(900)
def test_every_route_answers_as_its_description_says(
    model: Model, tmp_path: Path, subtests: pytest.Subtests, pytestconfig: pytest.Config
) -> None:
    from tests.fuzz import openapi  # needs schemathesis, which the default suite does not

    examples = pytestconfig.getoption("--examples", 20)
    policy = tmp_path / "policy.yaml"
    policy.write_text(openapi.POLICY)
    with whole_gateway(tmp_path / "gateway", model.url, POLICY=str(policy)) as gateway:
        for api in openapi.apis(gateway):
            for operation in openapi.operations(api):
                with subtests.test(operation.label):
                    if wrong := openapi.ask(api, operation, examples):
                        pytest.fail(wrong, pytrace=False)
        assert openapi.alive(gateway)
        assert '"level": "error"' not in (tmp_path / "gateway" / "log").read_text(errors="replace")
