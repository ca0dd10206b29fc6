"""What is shown of a constraint: the whole of a small one, a bounded part of a large one, and every refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from guided_tools import byte_level, compiled

from minillm_serve import cli
from minillm_serve.guided import json_stages
from minillm_serve.guided.explain import MAX_NODES, MAX_STATES, explain, render
from minillm_serve.guided.trace import trace

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 5, "pattern": "^[A-Z]"},
        "age": {"type": "integer", "minimum": 0, "multipleOf": 2},
        "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "minItems": 1, "maxItems": 3, "uniqueItems": True},
        "friend": {"$ref": "#"},
    },
    "required": ["name"],
    "additionalProperties": False,
}


def explained(schema: Any) -> str:
    stages = json_stages(schema)
    return render(explain(stages.network, stages.notes, stages.root))


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(["guided", "explain", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_normalised_schema_says_what_each_keyword_became() -> None:
    text = explained(PERSON)
    for part in ('"name": #2, "age"?: #3, "tags"?: #4, "friend"?: #5', "no further names", "0 to 5 characters"):
        assert part in text
    for part in ("pattern ^[A-Z]", "integer: >= 0; multiple of 2", '"a", "b"', "1 to 3 items; all different"):
        assert part in text


def test_every_state_that_is_shown_leads_to_shown_states_only() -> None:
    """A small network is shown as a whole: its numbers, its leaves, nothing left out."""
    stages = json_stages({"enum": ["x", 1, None]})
    found = explain(stages.network, stages.notes, stages.root)
    assert found.states_left_out == found.nodes_left_out == 0
    assert [state.number for state in found.states] == list(range(1, len(found.states) + 1))
    assert len(found.leaves) == len(stages.network.leaves)
    assert found.shortest == len("1")


def test_a_large_schema_is_cut_and_it_is_said_by_how_much() -> None:
    schema = {"properties": {f"p{number}": {"type": "integer", "minimum": number} for number in range(300)}}
    stages = json_stages(schema | {"type": "object", "minProperties": 1})
    found = explain(stages.network, stages.notes, stages.root)
    assert len(found.nodes) == MAX_NODES and len(found.states) == MAX_STATES
    assert found.nodes_left_out > 200 and found.states_left_out > 0
    text = render(found)
    assert f"... and {found.nodes_left_out} more" in text and f"... and {found.states_left_out} more states" in text
    assert len(text) < 60_000


def test_an_explanation_is_plain_json() -> None:
    stages = json_stages({"type": "string", "format": "no-such-format"})
    found = explain(stages.network, stages.notes, stages.root)
    assert json.loads(json.dumps(found.to_dict()))["notes"][0][0] == "format"
    assert "no-such-format" in render(found)


def test_rows_of_a_trace_say_where_the_text_leaves_the_grammar() -> None:
    grammar = compiled({"enum": ["abc", "abd"]})
    rows = trace(grammar, [b'"', b"a", b"b", b"x", b'"'])
    assert [row.piece for row in rows] == ['"', "a", "b", "x"]
    assert [row.accepted for row in rows] == [True, True, True, False]
    assert [row.offset for row in rows] == [0, 1, 2, 3]
    assert rows[0].forced == '"ab' and rows[3].forced == ""
    assert rows[3].expected == "c d" and rows[3].allowed >= 2
    assert [row.shortest for row in rows] == [5, 4, 3, 2]


def test_a_trace_of_tokens_has_a_row_for_each_and_one_behind_the_text() -> None:
    grammar = compiled({"type": "array", "items": {"type": "boolean"}})
    ids = byte_level().encode("[true, false]").ids
    rows = trace(grammar, ids)
    assert [row.token for row in rows] == [*ids, None]
    assert "".join(row.piece for row in rows[:-1]) == "[true, false]"
    assert rows[-1].complete and rows[-1].shortest == 0 and rows[-1].readings == ("the text may end here",)
    end = trace(grammar, [*ids, min(grammar.vocab.eos_token_ids)])[-1]
    assert end.allowed == len(grammar.vocab.eos_token_ids) and end.readings == ("the text has ended",)
    assert json.loads(json.dumps([row.to_dict() for row in rows]))[0]["offset"] == 0


def test_command_explains_a_file_and_a_text(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "person.json"
    file.write_text(json.dumps(PERSON), encoding="utf-8")
    for argument in (str(file), json.dumps(PERSON)):
        status, out, err = run(capsys, argument)
        assert status == 0 and not err
        assert "Normalised schema" in out and "Network" in out and "Leaves" in out


@pytest.mark.parametrize(("text", "status"), [("true", 0), ("tr", 1), ("none", 1), ("truer", 1), ("", 1)])
def test_command_runs_a_text_through_the_grammar(capsys: pytest.CaptureFixture[str], text: str, status: int) -> None:
    found, out, _ = run(capsys, '{"type": "boolean"}', "--text", text)
    assert found == status
    assert "offset" in out
    found, out, _ = run(capsys, '{"type": "boolean"}', "--json", "--text", text)
    assert found == status
    rows = json.loads(out)["trace"]
    assert (rows[-1]["accepted"] and rows[-1]["complete"]) == (status == 0)


def test_command_refuses_with_keyword_path_and_reason(capsys: pytest.CaptureFixture[str]) -> None:
    schema = json.dumps({"properties": {"a": {"pattern": "(a)\\1"}, "b": {"pattern": "(b)\\1"}}})
    status, out, err = run(capsys, schema)
    assert status == 2 and not out
    assert "'pattern'" in err and "/properties/a" in err
    assert err.count("--lenient") == 2, "both are named, though the first one is enough to refuse"
    status, out, _ = run(capsys, schema, "--json")
    refused = json.loads(out)["refused"]
    assert status == 2 and [part["keyword"] for part in refused] == ["pattern", "pattern"]
    assert "/properties/b" in refused[1]["path"] and refused[1]["why"]


def test_command_lists_what_a_lenient_request_leaves_out(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, '{"type": "string", "pattern": "(a)\\\\1"}', "--lenient")
    assert status == 0
    assert "Not enforced" in out and "pattern at /pattern" in out


@pytest.mark.parametrize(
    ("argument", "part"),
    [("{", "JSON"), ("no/such/file", "no/such/file"), ('{"type": "string", "minLength": -1}', "minLength"), ("[]", "")],
)
def test_command_says_what_is_wrong_with_its_argument(
    capsys: pytest.CaptureFixture[str], argument: str, part: str
) -> None:
    status, out, err = run(capsys, argument)
    assert status == 2 and not out
    assert err.startswith("minillm: ") and part in err and "Traceback" not in err


def test_command_refuses_what_nothing_satisfies(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, '{"type": "integer", "minimum": 3, "maximum": 2}')
    assert status == 2 and "minimum" in err
