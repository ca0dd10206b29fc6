"""The comparer of the differential run finds each kind of difference, and only what counts."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import replace
from typing import Any

import pytest

from minillm_serve.compare.conformance.asking import chains
from minillm_serve.compare.conformance.case import Answer, Case
from minillm_serve.compare.conformance.cases import all_cases
from minillm_serve.compare.conformance.comparing import compare
from minillm_serve.compare.conformance.recording import COMMITTED, Recording, load
from minillm_serve.compare.conformance.reviewed import LIST, Rule, load_rules
from minillm_serve.compare.conformance.verdict import judge
from minillm_serve.config import ConfigError

CASE = Case("chat/made-up", "/v1/chat/completions", {"messages": []})
WHOLE: dict[str, Any] = {
    "id": "chatcmpl-1",
    "created": 5,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hi there", "refusal": None},
            "logprobs": {"content": [{"token": "Hi", "logprob": -0.5}, {"token": " there", "logprob": -1.0}]},
            "finish_reason": "stop",
            "token_ids": [3, 4],
        }
    ],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}},
}


def answer(content: Any, status: int = 200, **fields: Any) -> Answer:
    return Answer(status, fields.pop("content_type", "application/json"), "r", json.dumps(content), **fields)


def changed(*path: Any, to: Any = None, drop: bool = False) -> Answer:
    """The whole answer with one field changed or left out."""
    content = json.loads(json.dumps(WHOLE))
    place = content
    for key in path[:-1]:
        place = place[key]
    if drop:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return answer(content)


def found(theirs: Answer, ours: Answer, case: Case = CASE) -> list[tuple[str, str]]:
    return [(difference.path, difference.kind) for difference in compare(case, theirs, ours)]


def test_an_answer_agrees_with_itself_and_with_one_of_another_moment() -> None:
    assert found(answer(WHOLE), answer(WHOLE)) == []
    other = json.loads(json.dumps(WHOLE)) | {"id": "chatcmpl-2", "created": 9}
    other["usage"]["prompt_tokens_details"]["cached_tokens"] = 16
    other["choices"][0]["logprobs"]["content"][0]["logprob"] += 1e-4
    assert found(answer(WHOLE), answer(other)) == []


def test_an_id_that_the_client_chose_is_exact_and_so_is_the_name_of_a_model() -> None:
    chosen = replace(CASE, headers=(("X-Request-Id", "mine"),))
    assert found(answer(WHOLE), changed("id", to="chatcmpl-2"), chosen) == [("body.id", "value")]
    models = answer({"data": [{"id": "smollm2-alias"}]})
    assert found(models, answer({"data": [{"id": "smollm2-other"}]})) == [("body.data.0.id", "value")]
    other = replace(answer(WHOLE), request_id="other")
    assert found(answer(WHOLE), other) == []
    assert found(answer(WHOLE), other, chosen) == [("headers.x-request-id", "value")]
    assert found(answer(WHOLE), replace(other, request_id=None)) == [("headers.x-request-id", "value")]


CHOICE = ("choices", 0)


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        (changed("id", to="cmpl-1"), ("body.id", "value")),
        (changed("id", to=None), ("body.id", "type")),
        (changed("created", to="now"), ("body.created", "type")),
        (changed(*CHOICE, "finish_reason", to="length"), ("body.choices.0.finish_reason", "value")),
        (changed(*CHOICE, "message", "content", to="Hi then"), ("body.choices.0.message.content", "value")),
        (changed(*CHOICE, "message", "refusal", drop=True), ("body.choices.0.message.refusal", "missing")),
        (changed(*CHOICE, "message", "name", to=None), ("body.choices.0.message.name", "extra")),
        (changed(*CHOICE, "token_ids", to=[3, 5]), ("body.choices.0.token_ids.1", "value")),
        (changed(*CHOICE, "token_ids", to=[3]), ("body.choices.0.token_ids", "length")),
        (changed(*CHOICE, "token_ids", to=None), ("body.choices.0.token_ids", "type")),
        (changed(*CHOICE, "index", to=True), ("body.choices.0.index", "type")),
        (changed("usage", "completion_tokens", to=3), ("body.usage.completion_tokens", "value")),
        (
            changed(*CHOICE, "logprobs", "content", 1, "logprob", to=-1.01),
            ("body.choices.0.logprobs.content.1.logprob", "value"),
        ),
        (changed("choices", to=[]), ("body.choices", "length")),
    ],
)
def test_each_kind_of_difference_is_found_once(ours: Answer, expected: tuple[str, str]) -> None:
    assert found(answer(WHOLE), ours) == [expected]


def test_another_status_is_the_one_difference() -> None:
    assert found(answer(WHOLE), answer({"error": {"message": "no"}}, 400)) == [("status", "status")]
    assert "no" in str(compare(CASE, answer(WHOLE), answer({"error": {"message": "no"}}, 400))[0])


def test_another_media_type_is_a_difference() -> None:
    assert found(answer(WHOLE), answer(WHOLE, content_type="text/plain")) == [("content_type", "value")]


def test_drawn_answers_may_say_something_else_of_the_same_form() -> None:
    drawn = replace(CASE, alike="in form")
    assert found(answer(WHOLE), changed(*CHOICE, "message", "content", to="Bye"), drawn) == []
    assert found(answer(WHOLE), changed(*CHOICE, "token_ids", to=[8, 9]), drawn) == []
    assert found(answer(WHOLE), changed(*CHOICE, "finish_reason", to="length"), drawn)
    assert found(answer(WHOLE), changed(*CHOICE, "token_ids", to=None), drawn)
    assert found(answer(WHOLE), changed("usage", "completion_tokens", to=3), drawn)


def test_cached_tokens_count_where_the_case_is_about_them() -> None:
    ours = changed("usage", "prompt_tokens_details", "cached_tokens", to=32)
    assert found(answer(WHOLE), ours) == []
    assert found(answer(WHOLE), ours, replace(CASE, name="completions/cache/second"))


def test_vectors_agree_within_rounding_however_they_are_sent() -> None:
    def embedding(*values: float, packed: bool) -> Answer:
        sent: Any = base64.b64encode(struct.pack("<2f", *values)).decode() if packed else list(values)
        return answer({"data": [{"embedding": sent}]})

    for packed in (True, False):
        theirs = embedding(0.25, -0.5, packed=packed)
        assert found(theirs, embedding(0.25, -0.50001, packed=packed)) == []
        assert found(theirs, embedding(0.25, -0.501, packed=packed)) == [("body.data.0.embedding.1", "value")]
    assert found(embedding(0.25, -0.5, packed=True), embedding(0.25, -0.5, packed=False))


def test_json_may_be_laid_out_otherwise_where_the_case_says_so() -> None:
    theirs = changed(*CHOICE, "message", "content", to='{"a":1}')
    ours = changed(*CHOICE, "message", "content", to='{\n "a": 1}')
    assert found(theirs, ours)
    assert found(theirs, ours, replace(CASE, alike="as JSON")) == []
    assert found(theirs, changed(*CHOICE, "message", "content", to='{"a": 2}'), replace(CASE, alike="as JSON"))


def refusal(param: str | None, kind: str = "BadRequestError", message: str = "no", code: int = 400) -> Answer:
    return answer({"error": {"message": message, "type": kind, "param": param, "code": code}}, code)


@pytest.mark.parametrize(
    ("theirs", "ours", "agree"),
    [
        ("temperature", "temperature", True),
        ("body.temperature", "temperature", True),
        ("body.messages.0.ChatCompletionDeveloperMessageParam.content", "messages.0.content", True),
        ("body.messages.0.ChatCompletionDeveloperMessageParam", "messages.0", True),
        ("response_format", "response_format.json_schema", True),
        ("body.17", "anything", True),
        ("body", None, True),
        ("body.1", None, True),
        ("body.temperature", None, False),
        (None, "prompt", True),
        ("temperature", "top_p", False),
        ("temperature", None, False),
        ("body.messages.1", "messages.0", False),
    ],
)
def test_refusals_agree_about_the_field(theirs: str | None, ours: str | None, agree: bool) -> None:
    assert (found(refusal(theirs), refusal(ours, message="other words")) == []) is agree


def test_refusals_agree_about_their_named_type_and_code() -> None:
    assert found(refusal(None, "Bad Request"), refusal(None)) == []
    assert found(refusal(None, "NotFoundError"), refusal(None)) == [("body.error.type", "value")]


def chunk(delta: dict[str, Any], finish: str | None = None, index: int = 0, **fields: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "finish_reason": finish}
    return {"id": "chatcmpl-1", "choices": [choice | ({"stop_reason": None} if finish else {})], **fields}


def stream(*events: dict[str, Any] | str) -> Answer:
    text = "".join(f"data: {event if isinstance(event, str) else json.dumps(event)}\n\n" for event in events)
    return Answer(200, "text/event-stream", "r", text)


ROLE, USAGE, DONE = chunk({"role": "assistant", "content": ""}), {"id": "c", "choices": [], "usage": {"x": 1}}, "[DONE]"
TEXT, END = chunk({"content": "Hi you"}), chunk({"content": "!"}, "stop")
STREAM = stream(ROLE, chunk({"content": "Hi"}), chunk({"content": " you"}), END, USAGE, DONE)


def test_a_stream_agrees_however_its_text_is_cut() -> None:
    assert found(STREAM, stream(ROLE, TEXT, END, USAGE, DONE)) == []


def test_choices_of_a_stream_may_come_interleaved() -> None:
    one = [chunk({"content": "a"}), chunk({"content": "b"}, "stop")]
    two = [chunk({"content": "c"}, index=1), chunk({"content": "d"}, "stop", 1)]
    assert found(stream(*one, *two, DONE), stream(one[0], two[0], two[1], one[1], DONE)) == []


@pytest.mark.parametrize(
    ("ours", "path"),
    [
        (stream(TEXT, END, USAGE, DONE), "stream.order.0"),
        (stream(ROLE, TEXT, END, USAGE), "stream.order.all"),
        (stream(ROLE, TEXT, END, DONE), "stream.order.all"),
        (stream(ROLE, TEXT, USAGE, END, DONE), "stream.order.all.0"),
        (stream(ROLE, TEXT, chunk({"content": "?"}, "stop"), USAGE, DONE), "stream.choices.0.text"),
        (stream(ROLE, TEXT, chunk({"content": "!"}, "length"), USAGE, DONE), "stream.choices.0.finish_reason"),
        (stream(ROLE, TEXT, END, END, USAGE, DONE), "stream.choices.0.finishes"),
        (stream(ROLE, TEXT, END, USAGE | {"usage": {"x": 2}}, DONE), "stream.closing.0.usage.x"),
        (stream(ROLE, TEXT | {"usage": None}, END, USAGE, DONE), "stream.chunks.text.usage"),
        (stream(ROLE, TEXT, END | {"logprobs": None}, USAGE, DONE), "stream.chunks.finish.logprobs"),
        (stream(ROLE, TEXT, END, "{", USAGE, DONE), "stream.order.all"),
    ],
)  # fmt: skip
def test_what_breaks_the_grammar_of_a_stream_is_found(ours: Answer, path: str) -> None:
    assert path in [difference.path for difference in compare(CASE, STREAM, ours)]


def test_calls_of_tools_are_put_together_again() -> None:
    def call(more: dict[str, Any], arguments: str) -> dict[str, Any]:
        return chunk({"tool_calls": [{"index": 0, **more, "function": {"arguments": arguments}}]})

    begun = {"id": "chatcmpl-tool-1", "type": "function"}
    end = chunk({}, "tool_calls")
    theirs = stream(call(begun, '{"a'), call({}, '": 1}'), end, DONE)
    assert found(theirs, stream(call(begun | {"id": "chatcmpl-tool-2"}, '{"'), call({}, 'a": 1}'), end, DONE)) == []
    assert found(theirs, stream(call(begun, '{"a'), call({}, '": 2}'), end, DONE)) == [
        ("stream.choices.0.tool_calls.0.arguments", "value")
    ]


def test_a_verdict_tells_agreed_from_listed_and_unexplained_and_finds_stale_rules() -> None:
    cases = [replace(CASE, name=f"chat/{name}") for name in ("same", "known", "new")]
    theirs = {case.name: answer(WHOLE) for case in cases}
    ours = theirs | {
        "chat/known": changed("id", to="cmpl-1"),
        "chat/new": changed(*CHOICE, "finish_reason", to="length"),
    }
    rules = [
        Rule(("chat/k*",), ("body.id",), "we say so", "neutral"),
        Rule(("*",), ("body.model",), "no longer so", "neutral"),
    ]
    verdict = judge(cases, theirs, ours, rules, whole=True)
    assert (verdict.agreed, verdict.listed, list(verdict.unexplained)) == (["chat/same"], ["chat/known"], ["chat/new"])
    assert verdict.stale == ["no longer so"] and not verdict.sound
    assert verdict.summary() == "1 agreed, 1 differ as listed, 1 unexplained, 3 compared"
    assert judge(cases[:2], theirs, ours, rules, whole=False).sound
    assert verdict.as_json()["unexplained"]["chat/new"][0]["ours"] == "length"


def test_the_reviewed_list_can_be_read_and_every_rule_has_a_reason() -> None:
    assert all(len(rule.reason) > 20 for rule in load_rules(LIST))


def test_a_rule_without_a_reason_is_refused(tmp_path) -> None:
    path = tmp_path / "list.toml"
    path.write_text('[[difference]]\ncases = ["*"]\npaths = ["*"]\nreason = " "\nverdict = "neutral"\n')
    with pytest.raises(ConfigError, match="needs cases, paths, a reason"):
        load_rules(path)


def test_there_are_enough_cases_of_every_area_and_their_chains_are_in_order() -> None:
    cases = all_cases()
    assert len(cases) >= 300
    areas = {case.name.partition("/")[0] for case in cases}
    assert areas >= {"chat", "completions", "tokenize", "detokenize", "embeddings", "rerank", "operations"}
    assert sum(len(chain) for chain in chains(cases)) == len(cases)
    with pytest.raises(ConfigError, match="comes after"):
        chains([replace(CASE, after="chat/never")])


def test_a_recording_is_read_as_it_was_written_and_answers_only_the_same_requests(tmp_path) -> None:
    recording = Recording({"version": "1"})
    recording.add([CASE], {CASE.name: answer({"text": "«ñ»"})})
    recording.save(tmp_path / "r.json")
    again = load(tmp_path / "r.json")
    assert again == recording
    assert again.split([CASE]) == ({CASE.name: answer({"text": "«ñ»"})}, [])
    assert again.split([replace(CASE, body={"messages": [1]})]) == ({}, [CASE.name])
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="not a recording"):
        load(tmp_path / "broken.json")


def test_the_committed_recording_has_an_answer_to_every_case() -> None:
    _, missing = load(COMMITTED).split(all_cases())
    assert missing == [], "record them: minillm compare conformance --record"
