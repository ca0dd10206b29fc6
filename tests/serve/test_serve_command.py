"""``minillm serve`` as a process: it says when it is ready, ends cleanly on a signal, and refuses what cannot work."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
from pathlib import Path

import httpx
import pytest
from serve_process import COMMAND, posix, serving

from minillm_serve.cli import build_parser
from minillm_serve.serve.main import bind


@posix
def test_sigterm_ends_it_cleanly_and_the_trace_is_written(tiny_model_dir: Path, tmp_path: Path):
    trace = tmp_path / "trace.json"
    with serving(str(tiny_model_dir), "--served-model-name", "a", "b", "--trace-file", str(trace)) as (process, url):
        assert [model["id"] for model in httpx.get(f"{url}/v1/models").json()["data"]] == ["a", "b"]
        body = {"model": "b", "prompt": "hi", "max_tokens": 3}
        response = httpx.post(f"{url}/v1/completions", json=body, headers={"X-Request-Id": "mine"}, timeout=30)
        assert response.json()["model"] == "a"
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "", (out, err)
    assert not re.search("WARNING|ERROR|Traceback", err), err
    [request] = json.loads(trace.read_text())["requests"].values()
    assert request["id"] == "cmpl-mine" and request["generated"] <= 3


@posix
def test_a_signal_aborts_what_runs_and_no_stream_ends_as_if_done(tiny_model_dir: Path):
    with serving(str(tiny_model_dir)) as (process, url):
        body = {"prompt": ["hi"] * 60, "max_tokens": 1000, "ignore_eos": True, "stream": True}
        received = ""
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=30) as stream:
            for text in stream.iter_text():
                if not received:
                    process.send_signal(signal.SIGINT)
                received += text
        _, err = process.communicate(timeout=30)
    assert process.returncode == 0
    *_, last, done = received.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == 503, "no stream may end as if it were complete"
    assert done == "data: [DONE]" and "Traceback" not in err


@posix
def test_with_a_shutdown_timeout_what_runs_is_finished(tiny_model_dir: Path):
    with serving(str(tiny_model_dir), "--shutdown-timeout", "60") as (process, url):
        body = {"prompt": "hi", "max_tokens": 300, "ignore_eos": True, "stream": True}
        received = ""
        with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=60) as stream:
            for text in stream.iter_text():
                if not received:
                    process.send_signal(signal.SIGTERM)
                received += text
        assert process.wait(30) == 0
    assert received.endswith("data: [DONE]\n\n") and received.count("data: {") == 300


def test_a_busy_port_is_one_clear_sentence(tiny_model_dir: Path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = subprocess.run([*COMMAND, str(tiny_model_dir), "--port", str(port)], capture_output=True, text=True)
    assert ended.returncode == 2
    assert str(port) in ended.stderr and "--port" in ended.stderr and ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--port", "70000", "--port"),
        ("--shutdown-timeout", "-1", "--shutdown-timeout"),
        ("--max-request-body-bytes", "0", "--max-request-body-bytes"),
        ("--trace-file", "/no/such/folder/trace.json", "/no/such/folder"),
        ("--max-num-seqs", "0", "max_num_seqs"),
        ("--dtype", "int3", "dtype"),
        ("--quantization", "int3", "quantization"),
        ("--scheduling-policy", "random", "scheduling_policy"),
        ("--kv-cache-dtype", "fp4", "kv_cache_dtype"),
        ("--max-model-len", "5000", "max_model_len"),
    ],
)
def test_a_flag_that_cannot_work_is_refused_by_name(tiny_model_dir: Path, flag: str, value: str, expected: str, capsys):
    from minillm_serve.cli import main

    assert main(["serve", str(tiny_model_dir), "--port", "0", flag, value]) == 2
    assert expected in capsys.readouterr().err


def test_flags_have_vllms_names():
    args = build_parser(["serve"]).parse_args(["serve", "m", "--num-gpu-blocks-override", "7", "--max-num-seqs", "3"])
    assert (args.model, args.host, args.port, args.num_kv_blocks, args.max_num_seqs) == ("m", "127.0.0.1", 8000, 7, 3)
    assert args.enable_prefix_caching and args.enable_chunked_prefill
    more = ["--no-enable-prefix-caching", "--no-enable-chunked-prefill", "--scheduling-policy", "priority",
            "--quantization", "int8", "--kv-cache-dtype", "int8"]  # fmt: skip
    args = build_parser(["serve"]).parse_args(["serve", *more])
    assert not args.enable_prefix_caching and not args.enable_chunked_prefill
    assert (args.scheduling_policy, args.quantization, args.kv_cache_dtype) == ("priority", "int8", "int8")


def test_the_listening_socket_lets_small_writes_go_out_at_once():
    """asyncio turns Nagle's algorithm off only where the socket names its protocol; accepted sockets inherit it."""
    with bind("127.0.0.1", 0) as listening:
        assert listening.proto == socket.IPPROTO_TCP
