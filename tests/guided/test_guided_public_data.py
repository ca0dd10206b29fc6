"""MaskBench, when it lies beside the repository: real schemas with instances, none of which may be judged wrongly."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from guided_tools import accepts_ids, accepts_text, compiled, tokenisations

from minillm_serve.guided import SchemaError

MASKBENCH = Path(__file__).resolve().parents[3] / "shared" / "data" / "maskbench" / "dev.jsonl.gz"

pytestmark = pytest.mark.skipif(not MASKBENCH.is_file(), reason="MaskBench does not lie beside the repository")


def cases(step: int, start: int = 0) -> list[dict[str, Any]]:
    with gzip.open(MASKBENCH, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in list(lines)[start::step]]


@pytest.mark.parametrize("any_order", [True, False])
def test_no_instance_is_judged_wrongly(any_order: bool) -> None:
    """In any order of properties, exactly the valid ones pass; in the schema's order (not every instance is written
    so), nothing invalid does."""
    sample = cases(6, start=int(any_order))
    compiled_schemas = taken = 0
    for case in sample:
        try:
            grammar = compiled(case["schema"], any_order=any_order)
        except SchemaError as error:
            assert error.kind != "unsatisfiable", (case["id"], error)
            continue
        compiled_schemas += 1
        for test in case["tests"]:
            accepted = accepts_text(grammar, json.dumps(test["data"], ensure_ascii=False))
            taken += accepted
            assert test["valid"] or not accepted, (case["id"], test)
            assert accepted or not test["valid"] or not any_order, (case["id"], test)
    assert compiled_schemas >= 0.97 * len(sample) and taken >= len(sample)


def test_masks_allow_the_tokens_of_valid_instances_and_end_where_they_end() -> None:
    checked = 0
    for case in cases(25, start=2):
        try:
            grammar = compiled(case["schema"], any_order=True)
        except SchemaError:
            continue
        for test in case["tests"]:
            text = json.dumps(test["data"], ensure_ascii=False)
            if len(text) < 1_500:
                assert accepts_ids(grammar, tokenisations(grammar, text)[3]) == test["valid"], (case["id"], text)
                checked += 1
    assert checked > 50
