"""Agent frameworks in their own loops, each reaching a model of another vendor through the translation alone.

The provider is played from `upstreams`: it calls a tool, gets the result, and answers.
"""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest
from tests.wire.translate.upstreams import Said, answer, stream
from tests.wire.translate.vendors import check_request

from outlay.wire.intent import Operation, Rejection
from outlay.wire.translate import open_translation, translate_answer, translate_request
from outlay.wire.translate.table import CHAT, GENERATE, MESSAGES, RESPONSES

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

LOOKS = Said(
    text="I look.",
    reasoning="Hm.",
    calls=(("weather", {"city": "Oslo"}),),
    stop="tool_calls",
    input=100,
    output=50,
    cached=30,
    thought=20,
)
ANSWERS = Said(text="It is 2 C", input=120, output=9)


class Provider:
    """Takes a client's requests, translated, and gives its two answers, translated back."""

    def __init__(self, client: Operation, upstream: Operation, http: Any = httpx) -> None:
        self._client = client
        self._upstream = upstream
        self._http = http
        self.requests: list[dict[str, Any]] = []

    def __call__(self, request: Any) -> Any:
        body = request.content
        is_streamed = "stream" in request.url.path or json.loads(body).get("stream") is True
        result = translate_request(
            self._client, self._upstream, body, model="gemini-3-x", stream=is_streamed, max_output_tokens=None
        )
        assert not isinstance(result, Rejection), result
        self.requests.append(check_request(self._upstream, result.body, stream=is_streamed))
        said = LOOKS if len(self.requests) == 1 else ANSWERS
        if is_streamed:
            translation = open_translation(self._client, self._upstream, model="asked", include_usage=True)
            content = translation.feed(stream(self._upstream, said)) + translation.end()
            return self._http.Response(200, content=content, headers={"content-type": "text/event-stream"})
        content = translate_answer(self._client, self._upstream, answer(self._upstream, said), model="asked")
        return self._http.Response(200, content=content, headers={"content-type": "application/json"})

    @property
    def async_openai(self) -> openai.AsyncOpenAI:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self))
        return openai.AsyncOpenAI(api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0)


def openai_agents(provider: Provider, *, is_streamed: bool) -> str:
    from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled

    set_tracing_disabled(True)

    @function_tool
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    model = OpenAIResponsesModel(model="asked", openai_client=provider.async_openai)
    agent = Agent(name="a", instructions="Be brief.", tools=[weather], model=model)

    async def run() -> str:
        if not is_streamed:
            return str((await Runner.run(agent, "Weather in Oslo?")).final_output)
        running = Runner.run_streamed(agent, "Weather in Oslo?")
        async for _ in running.stream_events():
            pass
        return str(running.final_output)

    return asyncio.run(run())


def langchain(provider: Provider, *, is_streamed: bool) -> str:
    from langchain_core.messages import HumanMessage, SystemMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    http = httpx.Client(transport=httpx.MockTransport(provider))
    model = ChatOpenAI(
        model="asked", api_key="k", base_url="http://gateway/v1", http_client=http, max_retries=0
    ).bind_tools([weather])
    history: list[Any] = [SystemMessage("Be brief."), HumanMessage("Weather in Oslo?")]
    for _ in range(2):
        if is_streamed:
            said = None
            for chunk in model.stream(history):
                said = chunk if said is None else said + chunk
        else:
            said = model.invoke(history)
        history.append(said)
        history += [weather.invoke(call) for call in said.tool_calls]
    return str(history[-1].content)


def pydantic_ai(provider: Provider, *, is_streamed: bool) -> str:
    from pydantic_ai import Agent
    from pydantic_ai.models.anthropic import AnthropicModel
    from pydantic_ai.providers.anthropic import AnthropicProvider

    http = httpx2.AsyncClient(transport=httpx2.MockTransport(provider))
    sdk = anthropic.AsyncAnthropic(api_key="k", base_url="http://gateway", http_client=http, max_retries=0)
    model = AnthropicModel("asked", provider=AnthropicProvider(anthropic_client=sdk))
    agent = Agent(model, instructions="Be brief.")

    @agent.tool_plain
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    async def run() -> str:
        if not is_streamed:
            return str((await agent.run("Weather in Oslo?")).output)
        async with agent.iter("Weather in Oslo?") as steps:
            async for node in steps:
                if Agent.is_model_request_node(node):
                    async with node.stream(steps.ctx) as events:
                        async for _ in events:
                            pass
        assert steps.result is not None
        return str(steps.result.output)

    return asyncio.run(run())


LOOPS: tuple[tuple[Callable[..., str], Operation], ...] = (
    (openai_agents, RESPONSES),
    (langchain, CHAT),
    (pydantic_ai, MESSAGES),
)
CASES = [
    pytest.param(loop, client, upstream, id=f"{loop.__name__} to {upstream}")
    for loop, client in LOOPS
    for upstream in (CHAT, RESPONSES, MESSAGES, GENERATE)
    if client is not upstream
]


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize(("loop", "client", "upstream"), CASES)
def test_a_loop_with_a_tool(
    loop: Callable[..., str], client: Operation, upstream: Operation, is_streamed: bool
) -> None:
    provider = Provider(client, upstream, httpx2 if client is MESSAGES else httpx)
    assert loop(provider, is_streamed=is_streamed) == "It is 2 C"
    assert len(provider.requests) == 2
    assert "2 C in Oslo" in json.dumps(provider.requests[1])
