"""A process of its own with a wrapped client, for the tests of many processes on one ledger.

`python -m tests.sdk.worker LEDGER URL LIMIT_USD MODE`: `calls` makes ten calls at once in threads and prints how many
were admitted; `hang` begins one stream, says so, and waits to be killed; `fork` makes a call in a forked child.
"""

import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai

import outlay
from tests import world

CALLS = 10
SAY = [{"role": "user", "content": "hello"}]


def main(ledger: str, url: str, limit: str, mode: str) -> None:
    raw = openai.OpenAI(base_url=url + "/v1", api_key="key", max_retries=0)
    client = outlay.wrap(
        raw,
        budget_usd=limit,
        budget="shared",
        ledger=Path(ledger),
        provider="openai",
        book=world.book(),
        wait_s=20,
    )

    def call(_: int) -> int:
        try:
            client.chat.completions.create(model="gpt-test", messages=SAY, max_tokens=80)
        except outlay.BudgetExceeded:
            return 0
        return 1

    print("ready", flush=True)
    sys.stdin.readline()
    if mode == "calls":
        with ThreadPoolExecutor(CALLS) as pool:
            print(sum(pool.map(call, range(CALLS))), flush=True)
    elif mode == "hang":
        stream = client.chat.completions.create(model="gpt-test", messages=SAY, stream=True, max_tokens=80)
        next(stream)
        print("streaming", flush=True)
        time.sleep(600)
    elif mode == "fork":
        call(0)
        child = os.fork()
        if child == 0:
            os._exit(0 if call(0) else 1)
        _, status = os.waitpid(child, 0)
        print(call(0) + (1 if status == 0 else 0), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
