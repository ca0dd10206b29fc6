"""With --isolate-cache key no client finds what another one left in the prefix cache, whatever salt it sends."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_server import LiveServer, wait_until

from minillm_serve.config import EngineConfig
from minillm_serve.serve.caller import Caller
from minillm_serve.serve.limits.isolation import CacheIsolation
from minillm_serve.serve.limits.keys import ApiKey, digest_of

PROMPT = [70 + number % 50 for number in range(200)]


def hits(server: LiveServer) -> float:
    wait_until(server.idle)
    return server.metric("prefix_cache_hits_total")


@pytest.mark.parametrize("isolate", ["off", "key"])
def test_two_keys_share_prefixes_only_where_they_may(tiny_model_dir: Path, isolate: str):
    config = EngineConfig(model=str(tiny_model_dir), num_kv_blocks=128, num_threads=1)
    keys = tuple(ApiKey(name, digest_of(name.encode())) for name in ("ana", "luis"))

    def gain(server: LiveServer, key: str, **fields: str) -> float:
        before = hits(server)
        body = {"prompt": PROMPT, "max_tokens": 1, **fields}
        assert server.post("/v1/completions", body, headers={"X-Api-Key": key}).status_code == 200
        return hits(server) - before

    with LiveServer(config, api_keys=keys, isolate_cache=isolate, open_metrics=True) as server:
        assert gain(server, "ana") == 0
        assert gain(server, "ana") > 100, "her own prefixes she finds"
        assert (gain(server, "luis") == 0) == (isolate == "key")
        assert gain(server, "ana", cache_salt="s") == 0
        assert gain(server, "ana", cache_salt="s") > 100, "a salt of her own still works"
        assert (gain(server, "luis", cache_salt="s") == 0) == (isolate == "key")


def test_no_client_can_write_anothers_salt():
    isolation = CacheIsolation()
    ana, luis = Caller("1", client="ana"), Caller("2", client="luis")
    stolen = isolation.salt(ana, "x")
    salts = {isolation.salt(ana, None), stolen, isolation.salt(luis, None), isolation.salt(luis, "x")}
    salts |= {isolation.salt(luis, stolen), isolation.salt(luis, isolation.salt(ana, None))}
    assert len(salts) == 6
    assert CacheIsolation().salt(ana, None) not in salts, "the secret is the process's own"
