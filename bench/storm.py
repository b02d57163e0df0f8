"""`python -m bench.storm PORT SECRET CALLERS SECONDS`: callers that ask again half a second after each answer.

A process of its own, at the lowest priority: on a machine of two cores it shares one with the load generator, which
must not wait for it. Says `{"answers": {status: count}}` at its end, or when it is told to stop.
"""

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from bench.machine import Cores, started_on
from bench.natives import BODY

PAUSE_S = 0.5
LONGEST_S = 300.0


@contextmanager
def storm(port: int, secret: str, cores: Cores, callers: int) -> Iterator[None]:
    """A storm for as long as the block lasts; raises RuntimeError if none of its calls was answered."""
    command = [sys.executable, "-m", "bench.storm", str(port), secret, str(callers), str(LONGEST_S)]
    with started_on(cores.load):
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()  # all callers are there
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    if not json.loads(output)["answers"]:
        raise RuntimeError("the storm got no answer")


async def _play(port: int, secret: str, callers: int, seconds: float) -> collections.Counter[str]:
    body = json.dumps(BODY).encode()
    head = f"host: x\r\nauthorization: Bearer {secret}\r\ncontent-length: {len(body)}"
    request = f"POST /v1/chat/completions HTTP/1.1\r\n{head}\r\n\r\n".encode() + body
    answers: collections.Counter[str] = collections.Counter()
    ready, there = asyncio.Event(), 0

    async def one() -> None:
        nonlocal there
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        there += 1
        if there == callers:
            ready.set()
        # callers of a real storm know nothing of each other
        await asyncio.sleep(random.random() * PAUSE_S)
        while True:
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = int(answer.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            answers[answer[9:12].decode()] += 1
            await asyncio.sleep(PAUSE_S)

    tasks = [asyncio.create_task(one()) for _ in range(callers)]
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await ready.wait()
    print("ready", flush=True)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return answers


if __name__ == "__main__":
    os.nice(19)
    found = asyncio.run(_play(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
    print(json.dumps({"answers": found}))
