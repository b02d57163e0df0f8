"""Legacy completions, moderation and rerank."""

import json

import pytest

from outlay.wire import completions, moderation, rerank
from outlay.wire.intent import CallIntent, Dialect, Operation, Rejection, Units, Usage


def taken(intent: CallIntent | Rejection) -> CallIntent:
    assert isinstance(intent, CallIntent), intent
    return intent


class TestCompletions:
    @pytest.mark.parametrize(
        ("fields", "choices", "limit"),
        [
            ({"prompt": "x"}, 1, 16),
            ({"prompt": "x", "max_tokens": 0, "echo": True}, 1, 0),
            ({"prompt": ["a", "b", "c"], "n": 2, "max_tokens": 9}, 6, 9),
            ({"prompt": "x", "n": 2, "best_of": 5}, 5, 16),
            ({"prompt": [1, 2, 3]}, 1, 16),
            ({"prompt": [[1, 2], [3]], "best_of": 3}, 6, 16),
        ],
    )
    def test_every_prompt_gets_every_completion(
        self, fields: dict[str, object], choices: int, limit: int
    ) -> None:
        body = json.dumps({"model": "m", **fields}).encode()
        intent = taken(completions.parse_completion(body))
        assert (intent.choices, intent.max_output_tokens) == (choices, limit)
        assert intent.operation is Operation.COMPLETIONS and intent.output_limit_field == "max_tokens"
        assert intent.input_tokens_bound == len(body) + completions.COMPLETION_OVERHEAD_TOKENS

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({}, "prompt"),
            ({"prompt": "x", "n_predict": 5}, "n_predict"),
            ({"prompt": "x", "max_completion_tokens": 5}, "max_completion_tokens"),
            ({"prompt": "x", "Best_Of": 5}, "best_of"),
            ({"prompt": "x", "use_beam_search": True}, "use_beam_search"),
            ({"prompt": "x", "best_of": 129}, "best_of"),
            ({"prompt": ["x"] * 100, "n": 100}, "prompt"),
            ({"prompt": {"id": "p"}}, "prompt"),
        ],
    )
    def test_refusals(self, fields: dict[str, object], name: str) -> None:
        refused = completions.parse_completion(json.dumps({"model": "m", **fields}).encode())
        assert isinstance(refused, Rejection) and refused.param == name

    def test_text_is_output(self) -> None:
        reader = completions.ChatStream(True)
        reader.feed(b'data: {"id":"c","choices":[{"text":"Gr\xc3\xbc","index":0}]}\n\n')
        usage = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\n'
        assert reader.feed(usage) == b"" and reader.usage == Usage(2, 3)
        assert (reader.deltas, reader.output_bytes) == (1, 4)
        answer = completions.read_answer(Operation.COMPLETIONS, b'{"id":"c","choices":[{"text":"abc"}]}')
        assert (answer.usage, answer.output_bytes) == (None, 3)


class TestModeration:
    def test_model_and_images(self) -> None:
        body = b'{"input":[{"type":"image_url","image_url":{"url":"x"}}]}'
        intent = taken(moderation.parse_moderation(body))
        assert intent.model == moderation.DEFAULT_MODEL and intent.max_output_tokens == 0
        assert intent.input_tokens_bound > 20_000
        assert isinstance(moderation.parse_moderation(b'{"model":"m"}'), Rejection)

    def test_answers(self) -> None:
        free = moderation.read_answer(Operation.MODERATION, b'{"id":"m","model":"o","results":[]}')
        assert free.usage == Usage(0, 0, model="o")
        counted = b'{"results":[],"usage":{"prompt_tokens":7,"total_tokens":7}}'
        priced = moderation.read_answer(Operation.MODERATION, counted)
        assert priced.usage == Usage(7, 0)
        assert moderation.read_answer(Operation.MODERATION, b"{}").usage is None
        assert moderation.read_answer(Operation.MODERATION, b'{"error":{}}').is_error


class TestRerank:
    @pytest.mark.parametrize(
        ("documents", "more", "units"),
        [
            (["short"] * 100, {}, 1),
            (["short"] * 101, {}, 2),
            # 1998 bytes with quotes in chunks of 500 - 5: five chunks a document
            (["x" * 1996] * 40, {}, 2),
            (["x" * 1996] * 100, {"max_tokens_per_doc": 400}, 1),
            ([{"text": "short"}], {}, 1),
        ],
    )
    def test_search_units(self, documents: list[object], more: dict[str, object], units: int) -> None:
        body = json.dumps({"model": "rerank-v3.5", "query": "cat", "documents": documents, **more}).encode()
        intent = taken(rerank.parse_rerank(body))
        assert intent.units == (Units("search_unit", units),)
        assert (intent.dialect, intent.max_output_tokens) == (Dialect.COHERE, 0)
        # a server that bills tokens counts the query with every document
        assert intent.input_tokens_bound >= len(body) + 5 * len(documents)

    @pytest.mark.parametrize(
        ("fields", "name"),
        [
            ({"query": "x", "documents": ["a"]}, "model"),
            ({"model": "m", "documents": ["a"]}, "query"),
            ({"model": "m", "query": "x"}, "documents"),
            ({"model": "m", "query": "x", "documents": []}, "documents"),
            ({"model": "m", "query": "x", "documents": [{"image": "https://x"}]}, "documents"),
            ({"model": "m", "query": {"url": "https://x"}, "documents": ["a"]}, "documents"),
            ({"model": "m", "query": "x", "documents": ["a"], "Max_Tokens_Per_Doc": 9}, "max_tokens_per_doc"),
        ],
    )
    def test_refusals(self, fields: dict[str, object], name: str) -> None:
        refused = rerank.parse_rerank(json.dumps(fields).encode())
        assert isinstance(refused, Rejection) and refused.param == name

    @pytest.mark.parametrize(
        ("body", "usage"),
        [
            (
                b'{"id":"r","results":[],"meta":{"billed_units":{"search_units":2}}}',
                Usage(0, 0, units=(Units("search_unit", 2),)),
            ),
            (
                b'{"results":[],"meta":{"billed_units":{"search_units":1.0,"input_tokens":30}}}',
                Usage(30, 0, units=(Units("search_unit", 1),)),
            ),
            (
                b'{"model":"jina-reranker-v3","results":[],"usage":{"total_tokens":15}}',
                Usage(15, 0, model="jina-reranker-v3"),
            ),
            (b'{"results":[],"usage":{"prompt_tokens":15,"total_tokens":-1}}', None),
            (b'{"results":[]}', None),
            (b"[]", None),
        ],
    )
    def test_answers(self, body: bytes, usage: Usage | None) -> None:
        assert rerank.read_answer(Operation.RERANK, body).usage == usage

    def test_an_error(self) -> None:
        assert rerank.read_answer(Operation.RERANK, b'{"message":"invalid api token"}').is_error
