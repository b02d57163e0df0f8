"""Agent frameworks in loops that would never end, stopped by a cap on the run; and an OpenAI-like editor."""

import asyncio
import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import openai
import pytest

from outlay.testing import MockProvider
from tests.agents.tools import charges, check_books
from tests.harness import SECRET, RunningGateway, budget
from tests.reality.doors import house

# the frameworks' own imports and models warn of what their next versions drop; nothing here is about that
pytestmark = pytest.mark.filterwarnings("ignore:::langchain", "ignore:::langgraph", "ignore:::pydantic")

RUN = {"x-outlay-run": "nightly-42"}
CAP = "0.02"
LIMIT = 400
"""Turns after which a framework gives up by itself, far behind the cap."""


class Stage(NamedTuple):
    """The mock that always calls a tool, and the gateway with a cap on every run."""

    mock: MockProvider
    gateway: RunningGateway

    @property
    def url(self) -> str:
        return self.gateway.url + "/v1"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with house(tmp_path) as (mock, gateway):
        gateway.swap(budgets=(budget("run", CAP, {"run": "*"}),))
        mock.behave(tool_call=True, tool_arguments='{"city": "Oslo"}')
        yield Stage(mock, gateway)


def langchain(url: str) -> None:
    from langchain_core.messages import HumanMessage
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    @tool
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    model = ChatOpenAI(model="gpt-test", api_key=SECRET, base_url=url, default_headers=RUN)
    bound = model.bind_tools([weather])
    history: list[Any] = [HumanMessage("Weather in Oslo?")]
    for _ in range(LIMIT):
        said = bound.invoke(history)
        if not said.tool_calls:
            return
        history.append(said)
        history += [weather.invoke(call) for call in said.tool_calls]


def langgraph(url: str) -> None:
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI
    from langgraph.graph import START, MessagesState, StateGraph
    from langgraph.prebuilt import ToolNode, tools_condition

    @tool
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    model = ChatOpenAI(model="claude-test", api_key=SECRET, base_url=url, default_headers=RUN)
    bound = model.bind_tools([weather])
    graph = StateGraph(MessagesState)
    graph.add_node("model", lambda state: {"messages": [bound.invoke(state["messages"])]})
    graph.add_node("tools", ToolNode([weather]))
    graph.add_edge(START, "model")
    graph.add_conditional_edges("model", tools_condition)
    graph.add_edge("tools", "model")
    graph.compile().invoke({"messages": [("user", "Weather in Oslo?")]}, {"recursion_limit": 2 * LIMIT})


def _openai_agents(url: str, *, responses: bool) -> None:
    from agents import (
        Agent,
        OpenAIChatCompletionsModel,
        OpenAIResponsesModel,
        Runner,
        function_tool,
        set_tracing_disabled,
    )

    set_tracing_disabled(True)

    @function_tool
    def weather(city: str) -> str:
        """The weather now."""
        return f"2 C in {city}"

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key=SECRET, base_url=url, default_headers=RUN) as client:
            kind = OpenAIResponsesModel if responses else OpenAIChatCompletionsModel
            agent = Agent(name="a", tools=[weather], model=kind(model="gpt-test", openai_client=client))
            await Runner.run(agent, "Weather in Oslo?", max_turns=LIMIT)

    asyncio.run(run())


def openai_agents_chat(url: str) -> None:
    _openai_agents(url, responses=False)


def openai_agents_responses(url: str) -> None:
    _openai_agents(url, responses=True)


def pydantic_ai(url: str) -> None:
    from pydantic_ai import Agent, UsageLimits
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    async def run() -> None:
        async with openai.AsyncOpenAI(api_key=SECRET, base_url=url, default_headers=RUN) as client:
            agent = Agent(OpenAIChatModel("gpt-test", provider=OpenAIProvider(openai_client=client)))

            @agent.tool_plain
            def weather(city: str) -> str:
                """The weather now."""
                return f"2 C in {city}"

            await agent.run("Weather in Oslo?", usage_limits=UsageLimits(request_limit=LIMIT))

    asyncio.run(run())


def litellm(url: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import litellm

        tool = {
            "type": "function",
            "function": {
                "name": "weather",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
            },
        }
        history: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
        for _ in range(LIMIT):
            answer = litellm.completion(
                model="openai/claude-test",
                api_base=url,
                api_key=SECRET,
                extra_headers=RUN,
                messages=history,
                tools=[tool],
            )
            said = answer.choices[0].message
            history.append(said.model_dump(exclude_none=True))
            history += [
                {"role": "tool", "tool_call_id": call.id, "content": "2 C in Oslo"}
                for call in said.tool_calls or ()
            ]


@pytest.mark.parametrize(
    "loop",
    [langchain, langgraph, openai_agents_chat, openai_agents_responses, pydantic_ai, litellm],
    ids=lambda loop: loop.__name__,
)
def test_a_loop_without_end_is_stopped_by_the_cap(
    stage: Stage, loop: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    with pytest.raises(Exception, match=r"Budget \\?'run\\?' \(.*run=nightly-42") as caught:
        loop(stage.url)
    error: Any = caught.value
    assert error.status_code == 402
    booked = charges(stage.gateway)
    assert 2 < len(booked) < 60
    assert {charge.identity["run"] for charge in booked} == {"nightly-42"}
    refused = stage.gateway.call(stage.gateway.gateway.metrics.view)
    assert sum(refused.refusals.values()) == 1, refused.refusals
    assert refused.overrun_nanos == 0
    check_books(stage.gateway, stage.mock)
    assert 0 < stage.mock.meter.total_nanos <= 20_000_000


def test_an_editor_that_speaks_openai_to_any_model(tmp_path: Path) -> None:
    """Cursor and its like: chat completions, streamed, with tools, at a model of another vendor."""
    with house(tmp_path) as (mock, gateway):
        mock.queue({"tool_call": True, "tool_arguments": '{"path": "a.py"}'}, {"say": "It is empty."})
        tool = {"type": "function", "function": {"name": "read_file", "parameters": {"type": "object"}}}
        history: list[Any] = [{"role": "user", "content": "What is in a.py?"}]
        with openai.OpenAI(base_url=gateway.url + "/v1", api_key=SECRET) as client:
            call, text, usage = _streamed(client, history, tool)
            assert json.loads(call["arguments"]) == {"path": "a.py"}
            assert usage.completion_tokens == 40
            history += [
                {
                    "role": "assistant",
                    "tool_calls": [{"id": call["id"], "type": "function", "function": _function(call)}],
                },
                {"role": "tool", "tool_call_id": call["id"], "content": ""},
            ]
            _, text, _ = _streamed(client, history, tool)
            assert text == "It is empty."
        assert [call.path for call in mock.calls] == ["/v1/messages"] * 2
        assert b"tool_result" in mock.calls[-1].body
        assert [charge.provider for charge in charges(gateway)] == ["anthropic"] * 2
        check_books(gateway, mock)


def _streamed(client: openai.OpenAI, history: list[Any], tool: Any) -> tuple[dict[str, str], str, Any]:
    """The tool call, the text and the usage of one streamed answer."""
    call, text, usage = {"id": "", "name": "", "arguments": ""}, "", None
    for chunk in client.chat.completions.create(
        model="claude-test",
        messages=history,
        tools=[tool],
        stream=True,
        stream_options={"include_usage": True},
    ):
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            for part in choice.delta.tool_calls or ():
                call["id"] = part.id or call["id"]
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    return call, text, usage


def _function(call: dict[str, str]) -> dict[str, str]:
    return {"name": call["name"], "arguments": call["arguments"]}
