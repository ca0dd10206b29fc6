"""Public collections of schemas and instances, when they lie beside the repository: none may be judged wrongly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from guided_tools import accepts_ids, accepts_text, compiled, dumps_all, tokenisations

from minillm_serve.guided import SchemaError

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SUITE = DATA / "json-schema-test-suite" / "draft2020-12"
MASKBENCH = DATA / "maskbench" / "dev.jsonl.gz"

# Valid by the standard and yet not written here: names come in the schema's order; keywords stay in force whatever
# the vocabulary of a metaschema elsewhere says.
OTHER_ORDER = {
    ("allOf", "allOf"),
    ("allOf with base schema", "valid"),
    ("const with object", "same object with different property order is valid"),
    (
        "schema that uses custom metaschema with with no validation vocabulary",
        "no validation: invalid number, but it still validates",
    ),
}


def suite_cases() -> list[Any]:
    return [
        pytest.param(case, id=f"{path.stem}-{case['description']}")
        for path in sorted(SUITE.glob("*.json"))
        for case in json.loads(path.read_text(encoding="utf-8"))
    ]


@pytest.mark.skipif(not SUITE.is_dir(), reason="the JSON-Schema-Test-Suite does not lie beside the repository")
def test_the_json_schema_test_suite_is_right_or_refused() -> None:
    compiled_schemas = right = 0
    for param in suite_cases():
        (case,) = param.values
        try:
            grammar = compiled(case["schema"])
        except SchemaError:
            continue
        compiled_schemas += 1
        for test in case["tests"]:
            accepted = {accepts_text(grammar, text) for text in dumps_all(test["data"])}
            if (case["description"], test["description"]) not in OTHER_ORDER:
                assert accepted == {test["valid"]}, (case["description"], test)
                right += 1
    print(f"{compiled_schemas} of {len(suite_cases())} schemas compiled, {right} instances right")
    assert compiled_schemas >= 125 and right >= 440


@pytest.mark.skipif(not MASKBENCH.is_file(), reason="MaskBench does not lie beside the repository")
def test_maskbench_no_invalid_instance_is_accepted() -> None:
    counts = dict.fromkeys(("schemas", "compiled", "valid", "valid_refused", "invalid"), 0)
    with gzip.open(MASKBENCH, "rt", encoding="utf-8") as lines:
        for line in lines:
            case = json.loads(line)
            counts["schemas"] += 1
            try:
                grammar = compiled(case["schema"])
            except SchemaError:
                continue
            counts["compiled"] += 1
            for test in case["tests"]:
                text = json.dumps(test["data"], ensure_ascii=False)
                if test["valid"]:
                    counts["valid"] += 1
                    counts["valid_refused"] += not accepts_text(grammar, text)
                else:
                    counts["invalid"] += 1
                    assert not accepts_text(grammar, text), (case["id"], text)
    print(counts)
    assert counts["compiled"] >= 400 and counts["valid_refused"] == 0


@pytest.mark.skipif(not MASKBENCH.is_file(), reason="MaskBench does not lie beside the repository")
def test_maskbench_masks_allow_the_tokens_of_valid_instances() -> None:
    checked = 0
    with gzip.open(MASKBENCH, "rt", encoding="utf-8") as lines:
        for line in list(lines)[::12]:
            case = json.loads(line)
            try:
                grammar = compiled(case["schema"])
            except SchemaError:
                continue
            for test in case["tests"]:
                text = json.dumps(test["data"], ensure_ascii=False)
                if len(text) < 2_000:
                    assert accepts_ids(grammar, tokenisations(grammar, text)[3]) == test["valid"], (case["id"], text)
                    checked += 1
    assert checked > 50
