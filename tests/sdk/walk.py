"""Walks a client's public surface and calls everything on it with made-up arguments."""

import asyncio
import functools
import inspect
import re
import threading
import typing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic import BaseModel

SAY = [{"role": "user", "content": "hello"}]
MAX_DEPTH = 7
PER_CALL_S = 3
MAX_ITEMS = 3
BY_NAME: dict[str, Any] = {
    "messages": SAY,
    "model": "gpt-test",
    "input": "hello",
    "prompt": "hello",
    "contents": "hello",
    "max_tokens": 10,
    "input_file_id": "file_1",
    "training_file": "file_1",
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "voice": "alloy",
    "purpose": "batch",
    "file": ("a.wav", b"RIFF0000"),
    "image": ("a.png", b"0000"),
    "images": [],
    "files": [("a.txt", b"0000")],
    "requests": [{"custom_id": "a", "params": {"model": "gpt-test", "max_tokens": 5, "messages": SAY}}],
    "path": "/v1/nothing/known",
    "cast_to": object,
    "tools": [],
    "polling_interval_ms": 1,
    "poll_interval_ms": 1,
    "src": "files/a",
    "message": "hello",
    "timeout": 2,
    "audio": ("a.wav", b"RIFF0000"),
    "recording": ("a.wav", b"RIFF0000"),
    "archive": ("a.zip", b"0000"),
    "data": ("a.bin", b"0000"),
    "video": ("a.mp4", b"0000"),
}
SKIPPED = frozenset({"close", "aclose", "copy", "with_options", "is_closed", "platform_headers"})
"""Of a client: what ends or copies it; copies have tests of their own."""


INNER = frozenset({"sdk_configuration", "parent_ref"})
"""Of google-genai's generated parts: the configuration, whose HTTP client is the metered one, and the way back."""


def surface(root: Any) -> Iterator[tuple[str, Callable[..., Any]]]:
    """(dotted name, bound method) of everything public that can be called."""
    yield from _surface(root, type(root).__name__, 0, set())


def _surface(
    owner: Any, name: str, depth: int, seen: set[type[Any]]
) -> Iterator[tuple[str, Callable[..., Any]]]:
    if depth > MAX_DEPTH:
        return
    for attribute in sorted(set(dir(owner)) | set(vars(owner))):
        if attribute.startswith("_") or attribute in SKIPPED or attribute in INNER:
            continue
        try:
            value = getattr(owner, attribute)
        except Exception:
            continue
        if isinstance(value, type):
            continue
        if _is_part(value):
            kinds = {*seen, type(value)}
            if type(value) not in seen:
                yield from _surface(value, f"{name}.{attribute}", depth + 1, kinds)
        elif callable(value) and (
            inspect.ismethod(value) or inspect.isfunction(value) or hasattr(value, "func")
        ):
            yield f"{name}.{attribute}", value


def _is_part(value: Any) -> bool:
    module = type(value).__module__
    if not module.startswith(("openai", "anthropic", "google.genai")) or not hasattr(value, "__dict__"):
        return False
    return (
        ".types" not in module and not callable(value) and not isinstance(value, (BaseModel, BaseException))
    )


def arguments(method: Callable[..., Any]) -> list[dict[str, Any]]:
    """Keyword arguments to call a method with: what it needs, and once more as a stream where it can be one."""
    try:
        parameters = inspect.signature(method).parameters.values()
    except (TypeError, ValueError):
        return [{}]
    needed: dict[str, Any] = {}
    names = {parameter.name for parameter in parameters}
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        if parameter.default is parameter.empty or parameter.name in ("messages", "model", "input", "prompt"):
            needed[parameter.name] = _made_up(parameter.name, str(parameter.annotation), parameter.annotation)
    calls = [needed]
    if "stream" in names:
        calls.append({**needed, "stream": True})
    return calls


def _made_up(name: str, text: str, annotation: Any) -> Any:
    if name in BY_NAME:
        return BY_NAME[name]
    if name.endswith(("_id", "_name", "name")):
        return "thing_1"
    literal = re.search(r"Literal\[['\"]([^'\"]+)", text)
    if literal:
        return literal[1]
    if typing.get_origin(annotation) is typing.Literal:
        return typing.get_args(annotation)[0]
    for mark, value in (
        ("Callable", lambda *_: None),
        ("bool", True),
        ("Iterable", []),
        ("List", []),
        ("list", []),
        ("Sequence", []),
        ("int", 1),
        ("float", 1.0),
        ("bytes", b"0000"),
        ("Param", {}),
        ("Dict", {}),
        ("dict", {}),
        ("Mapping", {}),
        ("Config", {}),
    ):
        if mark in text and "str" not in text.replace("stream", ""):
            return value
    return "thing_1"


def call(method: Callable[..., Any], given: dict[str, Any]) -> None:
    """Call a method of a synchronous client and use up what it returns."""
    found = _positional(method, given)
    if hasattr(found, "with_options"):
        return  # another client: to use it up would close what all of them share
    if hasattr(found, "__enter__") and not hasattr(found, "status_code"):
        with found as inside:
            _use(inside)
    else:
        _use(found)


def call_in_time(method: Callable[..., Any], given: dict[str, Any]) -> None:
    """`call`, in a thread that is given up when it takes too long."""
    problems: list[BaseException] = []

    def run() -> None:
        try:
            call(method, given)
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(PER_CALL_S)
    if thread.is_alive():
        raise TimeoutError
    if problems:
        raise problems[0]


def _use(value: Any) -> None:
    if hasattr(value, "__next__") or (hasattr(value, "__iter__") and "Page" in type(value).__name__):
        for number, _ in enumerate(value):
            if number >= MAX_ITEMS:
                break
    for name in ("read", "parse", "until_done"):
        if callable(getattr(value, name, None)) and "Response" in type(value).__name__:
            getattr(value, name)()
    if callable(getattr(value, "close", None)):
        value.close()


async def acall(method: Callable[..., Any], given: dict[str, Any]) -> None:
    """Call a method of an asynchronous client and use up what it returns."""

    async def run() -> None:
        found = _positional(method, given)
        if inspect.isawaitable(found):
            found = await found
        if hasattr(found, "with_options"):
            return
        if hasattr(found, "__aenter__") and not hasattr(found, "status_code"):
            async with found as inside:
                await _ause(inside)
        else:
            await _ause(found)

    await asyncio.wait_for(run(), PER_CALL_S)


async def _ause(value: Any) -> None:
    if hasattr(value, "__aiter__"):
        number = 0
        async for _ in value:
            number += 1
            if number >= MAX_ITEMS:
                break
    for name in ("read", "aread", "parse"):
        if callable(getattr(value, name, None)) and "Response" in type(value).__name__:
            got = getattr(value, name)()
            if inspect.isawaitable(got):
                await got
    for name in ("aclose", "close"):
        close = getattr(value, name, None)
        if callable(close):
            got = close()
            if inspect.isawaitable(got):
                await got
            break


def _positional(method: Callable[..., Any], given: dict[str, Any]) -> Any:
    try:
        parameters = inspect.signature(method).parameters
    except (TypeError, ValueError):
        return method(**given)
    first = [
        given[name] for name, one in parameters.items() if one.kind is one.POSITIONAL_ONLY and name in given
    ]
    rest = {
        name: value
        for name, value in given.items()
        if name not in parameters or parameters[name].kind is not inspect.Parameter.POSITIONAL_ONLY
    }
    try:
        return functools.partial(method, *first)(**rest)
    except TypeError as error:
        if "missing 1 required positional argument" not in str(error):
            raise
        return method("thing_1", **rest)
