"""The mock provider as a process of its own: `python -m outlay.testing.mock --port 0`.

Prints one JSON line with its address once it listens, and ends on SIGTERM or SIGINT. Its meter survives a
gateway that is killed: read it by `GET /_mock/meter`, or from `--meter-file`.
"""

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from outlay.testing.behaviour import BehaviourError
from outlay.testing.provider import DEFAULT_MODELS, MockProvider


class MockConfig(msgspec.Struct, forbid_unknown_fields=True):
    """What `--json-config` holds; every field as in `MockProvider`."""

    prices: dict[str, dict[str, int]] = {}
    behaviour: dict[str, object] = {}
    by_model: dict[str, dict[str, object]] = {}
    models: tuple[str, ...] = DEFAULT_MODELS
    api_keys: list[str] | None = None
    aws_keys: dict[str, str] | None = None
    keep_entries: bool = True
    keep_calls: int = 64


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until a signal; exit status 2 for a bad configuration."""
    parser = argparse.ArgumentParser(prog="python -m outlay.testing.mock", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--json-config", default="{}", help="a JSON object, or @FILE that holds one")
    parser.add_argument("--meter-file", help="append one JSON line for each request")
    options = parser.parse_args(arguments)
    # blocked before the server's thread exists, so that the signal waits for sigwait below
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    try:
        text = options.json_config
        config = msgspec.json.decode(
            Path(text[1:]).read_bytes() if text.startswith("@") else text, type=MockConfig
        )
        provider = MockProvider(
            prices=config.prices,
            behaviour=config.behaviour,
            port=options.port,
            models=config.models,
            api_keys=config.api_keys,
            aws_keys=config.aws_keys,
            keep_entries=config.keep_entries,
            keep_calls=config.keep_calls,
            meter_file=options.meter_file,
        )
        for model, changes in config.by_model.items():
            provider.behave_model(model, **changes)
    except (OSError, msgspec.MsgspecError, BehaviourError) as error:
        sys.stderr.write(f"mock: {error}\n")
        return 2
    with provider:
        sys.stdout.write(json.dumps({"url": provider.url, "port": provider.port, "pid": os.getpid()}) + "\n")
        sys.stdout.flush()
        signal.sigwait({signal.SIGTERM, signal.SIGINT})
    return 0


if __name__ == "__main__":
    sys.exit(main())
