"""The JSON-Schema-Test-Suite, when it lies beside the repository: each required case is right or refused."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from guided_tools import byte_level, dumps_all

from minillm_serve.guided import CompiledGrammar, JsonOptions, SchemaError, compile_json_schema

SUITE = Path(__file__).resolve().parents[3] / "shared" / "data" / "json-schema-test-suite" / "draft2020-12"

# Right by the letter of the standard, and yet meant here: format is asserted, and keywords stay in force whatever the
# vocabulary of a metaschema elsewhere says.
MEANT = ("is only an annotation by default", "no validation: invalid number, but it still validates")
REMOTE = "points outside this document"


def accepts(grammar: CompiledGrammar, text: str) -> bool:
    matcher = grammar.matcher()
    return matcher.accept_bytes(text.encode()) and matcher.is_complete()


def grammars(schema: Any) -> list[CompiledGrammar]:
    """With properties in the schema's order and in any order; none if nothing satisfies the schema."""
    try:
        return [
            compile_json_schema(schema, byte_level(), options=JsonOptions(any_order=any_order), machine="reference")
            for any_order in (False, True)
        ]
    except SchemaError as error:
        if error.kind == "unsatisfiable":
            return []
        raise


def verdict(in_order: CompiledGrammar, any_order: CompiledGrammar, data: Any, valid: bool) -> str:
    texts = dumps_all(data)
    free = {accepts(any_order, text) for text in texts}
    strict = {accepts(in_order, text) for text in texts}
    if free != {valid} or (strict != {valid} and not (valid and isinstance(data, (dict, list)))):
        return "wrong"
    return "right" if strict == {valid} else "right in any order only"


@pytest.mark.skipif(not SUITE.is_dir(), reason="the JSON-Schema-Test-Suite does not lie beside the repository")
def test_no_case_of_the_json_schema_test_suite_is_judged_wrongly() -> None:
    table: dict[str, Counter[str]] = {}
    wrong, refused = [], []
    for file in sorted(SUITE.glob("*.json")):
        counts = table[file.stem] = Counter()
        for case in json.loads(file.read_text(encoding="utf-8")):
            try:
                compiled = grammars(case["schema"])
            except SchemaError as error:
                kind = "remote" if REMOTE in str(error) else "refused"
                counts[kind] += len(case["tests"])
                refused += [f"{file.stem}: {case['description']}: {error}"] if kind == "refused" else []
                continue
            for test in case["tests"]:
                if any(test["description"].endswith(known) for known in MEANT):
                    counts["meant"] += 1
                    continue
                found = verdict(*compiled, test["data"], test["valid"]) if compiled else str(not test["valid"])
                found = {"True": "right", "False": "wrong"}.get(found, found)
                counts[found] += 1
                if found == "wrong":
                    wrong.append(f"{file.stem}: {case['description']}: {test['description']} (valid: {test['valid']})")
    total = sum(table.values(), Counter())
    for name, counts in [*table.items(), ("all", total)]:
        print(f"{name:28}", *(f"{kind} {number}" for kind, number in sorted(counts.items())), sep="  ")
    print(*refused, sep="\n")
    assert not wrong, "\n".join(wrong)
    assert total["right"] >= 1100 and total["right in any order only"] <= 10 and total["refused"] <= 60
