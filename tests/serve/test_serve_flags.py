"""One table of flags: what it says of itself, of vLLM and of TGI is so, and its document is current."""

from __future__ import annotations

import json
import subprocess
from dataclasses import fields
from pathlib import Path

import pytest

from minillm_serve.cli import build_parser, main
from minillm_serve.compare.environments import installed_version, python_of
from minillm_serve.serve import flags
from minillm_serve.serve.flag_docs import flags_table
from minillm_serve.serve.flags import ALL_FLAGS, GROUPS, SERVER_FLAGS, server_settings
from minillm_serve.serve.foreign_flags import FOREIGN
from minillm_serve.serve.settings import ServerSettings

DOCUMENT = Path(flags.__file__).with_name("FLAGS.md")
# What prints all the flags that the real vLLM's server has, and the environment variables that it reads.
ASK_VLLM = """
import json
from vllm import envs
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
flags = [name for action in parser._actions for name in action.option_strings]
print(json.dumps({"flags": flags, "variables": list(envs.environment_variables)}))
"""
# text-generation-launcher 3.3 --help
TGI_FLAGS = {
    f"--{name}"
    for name in """
    api-key cors-allow-origin cuda-graphs cuda-memory-fraction disable-custom-kernels disable-grammar-support dtype
    enable-prefill-logprobs hostname huggingface-hub-cache json-output kv-cache-dtype lora-adapters
    max-batch-prefill-tokens max-batch-size max-batch-total-tokens max-best-of max-client-batch-size
    max-concurrent-requests max-input-length max-input-tokens max-stop-sequences max-top-n-tokens max-total-tokens
    max-waiting-tokens model-id num-shard otlp-endpoint otlp-service-name payload-limit port quantize revision
    rope-factor rope-scaling sharded speculate tokenizer-config-path trust-remote-code usage-stats validation-workers
    waiting-served-ratio
    """.split()  # noqa: SIM905 - a list of forty strings reads worse
}
REMOVED_FROM_VLLM = {"--speculative-model", "--num-speculative-tokens", "--guided-decoding-backend", "--swap-space",
                     "--task", "--disable-log-requests"}  # fmt: skip


@pytest.fixture(scope="module")
def vllm() -> dict[str, set[str]]:
    if installed_version("vllm") is None:
        pytest.skip("needs vLLM: minillm compare setup vllm")
    asked = subprocess.run([python_of("vllm"), "-c", ASK_VLLM], capture_output=True, text=True, check=True)
    return {kind: set(names) for kind, names in json.loads(asked.stdout.splitlines()[-1]).items()}


def test_the_document_is_the_table():
    assert DOCUMENT.read_text(encoding="utf-8") == flags_table(), (
        "run: minillm serve --flags-table > minillm_serve/serve/FLAGS.md"
    )


def test_each_setting_has_one_flag_and_each_flag_its_setting():
    assert sorted(flag.field for flag in SERVER_FLAGS) == sorted(field.name for field in fields(ServerSettings))
    assert len({flag.name for flag in ALL_FLAGS}) == len(ALL_FLAGS)
    for _, owner, rows in GROUPS:
        assert {flag.field for flag in rows} <= {field.name for field in fields(owner)}


def test_without_flags_the_settings_are_their_defaults(monkeypatch: pytest.MonkeyPatch):
    for variable in ("MINILLM_API_KEY", "VLLM_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    assert server_settings(build_parser(["serve"]).parse_args(["serve", "m"])) == ServerSettings()


def test_what_the_table_says_of_vllm_is_so(vllm: dict[str, set[str]]):
    names = {flag.vllm for flag in ALL_FLAGS if flag.vllm is not None}
    assert {name for name in names if name.startswith("--")} <= vllm["flags"]
    assert {name for name in names if not name.startswith("--")} <= vllm["variables"]
    same = [flag.name for flag in ALL_FLAGS if flag.name in vllm["flags"] and flag.vllm != flag.name]
    assert not same, "vLLM has these too: the table must say so"
    for name in FOREIGN.keys() - TGI_FLAGS:
        known = name.partition(".")[0].replace("--no-", "--") in vllm["flags"]
        assert known != (name in REMOVED_FROM_VLLM), name


def test_what_the_table_says_of_tgi_is_so():
    assert {flag.tgi for flag in ALL_FLAGS if flag.tgi is not None} <= TGI_FLAGS


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--tensor-parallel-size 2", "--tensor-parallel-size is not supported: one process"),
        ("-tp 2", "-tp is not supported"),
        ("--speculative-model x", "--speculative-config"),
        ("--guided-decoding-backend outlines", "--structured-outputs-config.backend"),
        ("--max-batch-total-tokens 9", "--kv-cache-memory-bytes"),
        ("--cuda-graphs 8,16", "--enforce-eager"),
        ("--enable-lora", "no LoRA"),
        ("--model m", "without a flag"),
        ("--max-total-tokens 100", "TGI's name for --max-model-len"),
        ("--json-output", "TGI's name for --log-format"),
    ],
)
def test_a_flag_from_elsewhere_gets_its_reason(typed: str, expected: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="2"):
        main(["serve", "m", *typed.split()])
    assert expected in capsys.readouterr().err


def test_a_share_of_a_gpu_is_refused_on_a_cpu(capsys: pytest.CaptureFixture[str]):
    assert main(["serve", "m", "--gpu-memory-utilization", "0.9"]) == 2
    assert "kv_cache_memory_bytes" in capsys.readouterr().err


def test_what_asks_for_nothing_else_than_what_happens_is_accepted():
    typed = ["--tensor-parallel-size", "1", "--load-format", "auto", "--disable-log-stats", "--enforce-eager"]
    args = build_parser(["serve"]).parse_args(["serve", *typed, "m", "--max-num-seqs", "3"])
    assert (args.model, args.max_num_seqs) == ("m", 3)


def test_help_shows_each_flag_of_the_table_and_no_other(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--help"])
    shown = capsys.readouterr().out
    assert all(flag.name in shown for flag in ALL_FLAGS) and "--tensor-parallel-size" not in shown
    assert all(f"\n{title}:\n" in shown for title, _, _ in GROUPS)


def test_the_table_can_be_printed(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit, match="0"):
        main(["serve", "--flags-table"])
    assert capsys.readouterr().out == flags_table()
