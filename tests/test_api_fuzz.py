"""The API under requests that its own description allows, and under some that it does not (schemathesis)."""

from __future__ import annotations

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance

from ruyicam.cloud.serve.accounts import Role
from ruyicam.cloud.serve.web.api import make_api

# Two do not end, one sends something to wherever a channel says.
LEFT_OUT = ("/v1/events/stream", "/v1/live", "/v1/channels/{name}/test")


@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_answer_is_one_that_the_description_names(backend, mode):
    """As an administrator, and as nobody."""
    shown = {"Authorization": f"Bearer {backend.accounts.new_token('fuzz', Role.ADMIN, 'test')}"}
    schema, wrong, count = schemathesis.openapi.from_asgi("/openapi.json", make_api(backend)), [], 0
    for found in schema.get_all_operations():
        operation = found.ok()
        # Nothing that has no parameters can be asked wrongly.
        plain = not [*operation.iter_parameters(), *operation.body]
        if operation.path in LEFT_OUT or (mode == GenerationMode.NEGATIVE and plain):
            continue

        @settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case):
            # Some rules no schema tells: a rule needs a channel that is there, and an administrator stays.
            case.call_and_validate(headers=shown, excluded_checks=[positive_data_acceptance])

        try:
            check()
        except BaseException as error:
            # All of them are worth knowing.
            wrong.append(f"{operation.label}: {error}")
        count += 1
    assert not wrong, "\n".join(wrong)
    assert count > 8
