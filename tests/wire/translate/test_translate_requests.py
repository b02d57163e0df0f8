"""Every feature of the table between every two dialects: the target's SDK takes the body and it reads back the same,
or the 422 names the field."""

import json
from typing import Any

import msgspec
import pytest
from tests.wire.translate.meaning import meaning
from tests.wire.translate.samples import SAMPLES, encoded
from tests.wire.translate.vendors import check_request

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import Translated, translate_request
from outlay.wire.translate.request import READERS
from outlay.wire.translate.table import FEATURES, PAIRS, Feature, cell

CASES = [
    pytest.param(feature, source, target, id=f"{feature.name}: {source} to {target}")
    for feature in FEATURES
    for source, target in PAIRS
    if source in feature.fields
]
# the target says the same in other words, or cannot say it at all and needs not (see the table's notes and hints)
SAID_OTHERWISE = {
    ("failed tool result", Operation.CHAT),
    ("failed tool result", Operation.RESPONSES),
    ("image in a tool result", Operation.CHAT),
    ("thinking budget in tokens", Operation.CHAT),
    ("thinking budget in tokens", Operation.RESPONSES),
    ("end user's id", Operation.GENERATE),
}


def translated(source: Operation, target: Operation, body: dict[str, Any], **options: Any) -> Any:
    given = {"model": "gemini-3-pro", "stream": False, "max_output_tokens": None, **options}
    return translate_request(source, target, encoded(body), **given)


def test_every_feature_has_a_sample_of_every_dialect_that_can_say_it() -> None:
    assert {feature.name: set(feature.fields) for feature in FEATURES} == {
        name: set(bodies) for name, bodies in SAMPLES.items()
    }


@pytest.mark.parametrize(("feature", "source", "target"), CASES)
@pytest.mark.parametrize("stream", [False, True])
def test_matrix(feature: Feature, source: Operation, target: Operation, stream: bool) -> None:
    body = SAMPLES[feature.name][source]
    result = translated(source, target, body, stream=stream)
    stated = cell(feature, source, target)
    if stated != "yes":
        assert isinstance(result, Rejection), result
        assert (result.status, result.code) == (422, "untranslatable")
        assert result.param is not None
        assert result.param.startswith(feature.fields[source])
        assert result.param in result.message
        return
    assert isinstance(result, Translated), result
    given = check_request(target, result.body, stream=stream)
    assert given.get("model") == (None if target is Operation.GENERATE else "gemini-3-pro")
    assert given.get("stream", False) is (stream and target is not Operation.GENERATE)
    if (feature.name, target) not in SAID_OTHERWISE:
        assert meaning(READERS[target](with_model(result.body))) == meaning(READERS[source](encoded(body)))


def with_model(body: bytes) -> bytes:
    fields = json.loads(body)
    fields.pop("stream", None)
    return msgspec.json.encode({"model": "m", **fields, "store": None} if "store" in fields else fields)
