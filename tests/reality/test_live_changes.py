"""Changes to a running gateway: prices, keys and YAML edits are in force within a second, and no stream is dropped."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from outlay.app.control import open_operations
from outlay.kernel.errors import ConfigError, OutlayError, ReadOnlyObject
from outlay.testing import MockProvider
from tests.reality.test_kill9 import CONFIG, SECRET, Gateway

pytestmark = pytest.mark.slow


class Running:
    """A gateway process over a config that a test edits."""

    def __init__(self, config: Path, url: str) -> None:
        self.config = config
        self.text = CONFIG.format(url=url, secret=SECRET, port=0, limit="5")
        config.write_text(self.text)
        self.gateway = Gateway(config)

    def ask(
        self, model: str = "gpt-test", secret: str = SECRET, **changes: Any
    ) -> tuple[int, dict[str, Any]]:
        body = {"model": model, "messages": [{"role": "user", "content": "hi"}], **changes}
        request = urllib.request.Request(
            self.gateway.url + "/v1/chat/completions",
            json.dumps(body).encode(),
            {"authorization": f"Bearer {secret}", "content-type": "application/json"},
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.loads(error.read())

    def within_a_second(self, status: int, **call: Any) -> dict[str, Any]:
        until = time.monotonic() + 1
        while True:
            found, body = self.ask(**call)
            if found == status or time.monotonic() > until:
                assert found == status, body
                return body
            time.sleep(0.05)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    with MockProvider() as mock:
        found = Running(tmp_path / "outlay.yaml", mock.url)
        found.mock = mock  # type: ignore[attr-defined]
        yield found
        found.gateway.stop()


def test_unknown_model_then_a_price(running: Running) -> None:
    status, body = running.ask("gpt-nobody-knows")
    assert status == 422
    assert body["error"]["code"] == "model_unpriced"
    with open_operations(running.config, os.environ) as operations:
        operations.put(
            "price",
            "openai/gpt-nobody-knows",
            {
                "kind": "custom",
                "provider": "openai",
                "model": "gpt-nobody-knows",
                "usd_per_mtok": {"input": "1", "output": "2"},
            },
            "test",
        )
    running.within_a_second(200, model="gpt-nobody-knows")


def test_key_created_and_revoked(running: Running) -> None:
    import hashlib

    secret = "sk-outlay-second-key-0123456789abcdef"
    digest = hashlib.sha256(secret.encode()).hexdigest()
    with open_operations(running.config, os.environ) as operations:
        operations.put("key", "second", {"name": "second", "secret_sha256": digest, "team": "x"}, "test")
        running.within_a_second(200, secret=secret)
        operations.delete("key", "second", "test")
    running.within_a_second(401, secret=secret)


def test_what_the_yaml_owns_is_read_only(running: Running) -> None:
    with open_operations(running.config, os.environ) as operations:
        for kind, name in (("key", "app"), ("budget", "all"), ("price", "openai/gpt-test")):
            with pytest.raises(ReadOnlyObject, match=r"outlay\.yaml:\d+"):
                operations.delete(kind, name, "test")
        with pytest.raises(ReadOnlyObject, match=r"outlay\.yaml:\d+"):
            operations.put(
                "budget", "all", {"name": "all", "scope": {}, "limit_usd": "1", "window": "day"}, "test"
            )
        with pytest.raises(ConfigError, match="limit_usd"):
            operations.put(
                "budget", "n", {"name": "n", "scope": {}, "limit_usd": "-1", "window": "day"}, "test"
            )
        with pytest.raises(OutlayError):
            operations.delete("budget", "nope", "test")


def test_yaml_edit_within_a_second_and_no_stream_dropped(running: Running) -> None:
    running.mock.behave(chunk_ms=100, chunks=20)  # type: ignore[attr-defined]
    request = urllib.request.Request(
        running.gateway.url + "/v1/chat/completions",
        json.dumps(
            {"model": "gpt-test", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
        ).encode(),
        {"authorization": f"Bearer {SECRET}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as stream:
        first = stream.readline()
        assert first.startswith(b"data: ")
        running.config.write_text(running.text.replace("limit_usd: 5,", "limit_usd: 0.000001,"))
        running.mock.behave(chunk_ms=0)  # type: ignore[attr-defined]
        body = running.within_a_second(402)
        assert body["error"]["budget"] == "all"
        rest = stream.read()
    assert rest.rstrip().endswith(b"[DONE]")
    # a file that became bad changes nothing, and says why
    running.config.write_text("version: 1\nnonsense: true\n")
    until = time.monotonic() + 2
    while time.monotonic() < until:
        with open_operations_of(running) as status:
            if status["config_problem"]:
                break
        time.sleep(0.05)
    assert "nonsense" in status["config_problem"]
    assert running.ask()[0] == 402
    running.config.write_text(running.text)
    running.within_a_second(200)


class open_operations_of:
    """Status through the socket, without reading the (bad) file."""

    def __init__(self, running: Running) -> None:
        from outlay.app.control import ControlClient

        self.client = ControlClient(running.config.with_name("outlay.db"))

    def __enter__(self) -> dict[str, Any]:
        return self.client.status()

    def __exit__(self, *_: object) -> None:
        self.client.close()
