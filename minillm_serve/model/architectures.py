"""The architectures we run, each as its differences from Llama, and how their ``config.json`` is read.

A setting that would change the forward pass and that we do not compute is refused by its name, never ignored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from minillm_serve.config import ConfigError
from minillm_serve.model.rope import Rope, positive

SIZES = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
MAX_LAYERS = 4096
MAX_POSITIONS = 1 << 24  # the last integer that fp32 angles can tell from its neighbours
LAYER_TYPES = ("full_attention", "sliding_attention")

# Settings of other architectures, and the values with which they do nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "partial_rotary_factor": (1,),
    "clip_qkv": (),
    "attn_logit_softcapping": (),
    "final_logit_softcapping": (),
    "use_bidirectional_attention": (False,),
    "use_qk_norm": (False,),
    "attention_multiplier": (),
    "residual_multiplier": (1,),
    "embedding_multiplier": (1,),
    "logits_scaling": (1,),
    "logit_scale": (1,),
    "attention_chunk_size": (),
    "attn_temperature_tuning": (False, 0),
    "num_experts": (0, 1),
    "num_local_experts": (0, 1),
    "add_cross_attention": (False,),
}


@dataclass(frozen=True)
class Architecture:
    """How one architecture departs from Llama; its defaults are what a config.json means where it is silent.

    needs: settings without which we would have to guess. biases: which attention projections have one: ``config``
    (``attention_bias`` says), ``qkv`` (those three, always) or ``none``. window: which layers may have a sliding
    window: ``no`` layer, ``all``, those from ``max_window_layers`` on (``upper``), all but each sixth (``sixth``) or
    those without RoPE (``nope``); ``layer_types`` overrides the last three.
    """

    needs: tuple[str, ...] = ("num_key_value_heads", "max_position_embeddings")
    tied: bool = False
    biases: str = "config"
    mlp_bias: bool = False
    window: str = "no"
    default_window: int | None = None
    theta: float = 10000.0
    qk_norm: bool = False
    gemma: bool = False
    sandwich_norms: bool = False


ARCHITECTURES = {
    "LlamaForCausalLM": Architecture(needs=(), mlp_bias=True),
    "MistralForCausalLM": Architecture(biases="none", window="all", default_window=4096),
    "Qwen2ForCausalLM": Architecture(biases="qkv", window="upper", default_window=4096),
    "Qwen3ForCausalLM": Architecture(
        needs=("num_key_value_heads", "max_position_embeddings", "head_dim"),
        window="upper",
        default_window=4096,
        qk_norm=True,
    ),
    "SmolLM3ForCausalLM": Architecture(tied=True, mlp_bias=True, window="nope", theta=2_000_000.0),
    "GemmaForCausalLM": Architecture(
        needs=("num_key_value_heads", "max_position_embeddings", "head_dim"), tied=True, gemma=True
    ),
    "Gemma3ForCausalLM": Architecture(
        needs=("num_key_value_heads", "max_position_embeddings", "head_dim", "query_pre_attn_scalar"),
        tied=True,
        window="sixth",
        default_window=4096,
        theta=1_000_000.0,
        qk_norm=True,
        gemma=True,
        sandwich_norms=True,
    ),
}


def fields_from_hf(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ModelConfig (but for the EOS ids) that a config.json implies. Raises :class:`ConfigError`."""
    names = raw.get("architectures")
    if not isinstance(names, list) or names[:1] not in [[name] for name in ARCHITECTURES]:
        raise ConfigError(f"architecture {names} is not supported; supported: {', '.join(ARCHITECTURES)}")
    model = ARCHITECTURES[names[0]]
    for name in (*SIZES, *model.needs):
        _positive_int(raw, name)
    for name, harmless in NEUTRAL.items():
        if raw.get(name) is not None and raw[name] not in harmless:
            raise ConfigError(f"{names[0]} with {name} = {raw[name]!r} is not supported: no code here computes it")
    layers, heads, hidden = raw["num_hidden_layers"], raw["num_attention_heads"], raw["hidden_size"]
    positions = _positive_int(raw, "max_position_embeddings", 2048)
    if layers > MAX_LAYERS or positions > MAX_POSITIONS:
        raise ConfigError(
            f"{layers} layers of {positions} positions: at most {MAX_LAYERS} of {MAX_POSITIONS} are supported"
        )
    head_dim = _positive_int(raw, "head_dim", hidden // heads)
    kv_heads = _positive_int(raw, "num_key_value_heads", heads)
    if heads % kv_heads or head_dim % 2:
        raise ConfigError(f"{heads} heads of size {head_dim} over {kv_heads} KV heads do not divide evenly")
    qkv_bias, output_bias, mlp_bias = _biases(raw, names[0], model)
    windows = _windows(raw, names[0], model)
    return {
        "architecture": names[0],
        "vocab_size": raw["vocab_size"],
        "hidden_size": hidden,
        "intermediate_size": raw["intermediate_size"],
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim,
        "rms_norm_eps": positive("rms_norm_eps", raw.get("rms_norm_eps", 1e-6)),
        "max_position_embeddings": positions,
        "tie_word_embeddings": bool(raw.get("tie_word_embeddings", model.tied)),
        "qkv_bias": qkv_bias,
        "output_bias": output_bias,
        "mlp_bias": mlp_bias,
        "qk_norm": model.qk_norm,
        "sandwich_norms": model.sandwich_norms,
        "norm_offset": 1.0 if model.gemma else 0.0,
        "embedding_scale": hidden**0.5 if model.gemma else 1.0,
        "activation": _activation(raw, names[0], model),
        "attention_scale": (raw["query_pre_attn_scalar"] if model.sandwich_norms else head_dim) ** -0.5,
        "sliding_windows": windows,
        "ropes": _ropes(raw, model, head_dim, windows),
        "quantization": _quantization(raw),
    }


def _quantization(raw: Mapping[str, Any]) -> Mapping[str, Any] | None:
    stated = raw.get("quantization_config")
    if stated is not None and not isinstance(stated, dict):
        raise ConfigError(f"quantization_config must be an object, config.json has {stated!r}")
    return stated


def _activation(raw: Mapping[str, Any], name: str, model: Architecture) -> str:
    stated = raw.get("hidden_activation") or raw.get("hidden_act") or ("gelu_pytorch_tanh" if model.gemma else "silu")
    if model.gemma and stated == "gelu":  # the first Gemma files say gelu and mean its tanh form
        return "gelu_tanh"
    if not isinstance(stated, str) or stated not in ACTIVATIONS:
        raise ConfigError(f"{name} with hidden_act {stated!r} is not supported; supported: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[stated]


def _biases(raw: Mapping[str, Any], name: str, model: Architecture) -> tuple[bool, bool, bool]:
    """Whether (q, k, v), the attention's output and the MLP add a bias."""
    attention, mlp = bool(raw.get("attention_bias")), bool(raw.get("mlp_bias"))
    if mlp and not model.mlp_bias:
        raise ConfigError(f"{name} has no MLP biases, config.json asks for them (mlp_bias)")
    if model.biases == "config":
        return attention, attention, mlp
    return model.biases == "qkv", False, mlp


def _windows(raw: Mapping[str, Any], name: str, model: Architecture) -> tuple[int, ...]:
    """Per layer, how many tokens back a token may look, itself included; 0: all."""
    layers, types = raw["num_hidden_layers"], raw.get("layer_types")
    if types is not None and (
        not isinstance(types, list) or len(types) < layers or any(kind not in LAYER_TYPES for kind in types)
    ):
        raise ConfigError(f"{name} with layer_types {types!r} is not supported; supported: {', '.join(LAYER_TYPES)}")
    window = raw.get("sliding_window", model.default_window)
    if model.window in ("upper", "nope") and not raw.get("use_sliding_window", False):
        window = None
    if window is not None and (isinstance(window, bool) or not isinstance(window, int) or window < 1):
        raise ConfigError(f"sliding_window must be a positive integer or null, config.json has {window!r}")
    if model.window == "no" and window is not None:
        raise ConfigError(f"{name} has no sliding window, config.json asks for one of {window}")
    default = _default_layer_types(raw, model, layers, window)
    types = types[:layers] if types is not None else default
    if model.window in ("no", "all") and types != default:
        raise ConfigError(f"{name} with sliding_window {window!r} and layer_types {types} is not supported")
    if window is None and types != [LAYER_TYPES[0]] * layers:
        raise ConfigError(f"{name} has layers of sliding_attention but no sliding_window")
    return tuple(window if kind == "sliding_attention" else 0 for kind in types)


def _default_layer_types(raw: Mapping[str, Any], model: Architecture, layers: int, window: int | None) -> list[str]:
    first = raw.get("max_window_layers", 28) if model.window == "upper" and window is not None else 0
    if isinstance(first, bool) or not isinstance(first, int):
        raise ConfigError(f"max_window_layers must be an integer, config.json has {first!r}")

    def slides(layer: int) -> bool:
        if model.window == "sixth":
            return (layer + 1) % _positive_int(raw, "sliding_window_pattern", 6) != 0
        if window is None or model.window == "no":
            return False
        if model.window == "upper":
            return layer >= first
        return model.window == "all" or not _has_rope(raw, layer)

    return [LAYER_TYPES[slides(layer)] for layer in range(layers)]


def _has_rope(raw: Mapping[str, Any], layer: int) -> bool:
    """SmolLM3: ``no_rope_layers`` holds a 1 (despite its name) where a layer does rotate."""
    listed = raw.get("no_rope_layers")
    if listed is None:
        return (layer + 1) % _positive_int(raw, "no_rope_layer_interval", 4) != 0
    if not isinstance(listed, list) or len(listed) < raw["num_hidden_layers"]:
        raise ConfigError(f"no_rope_layers must list every layer, config.json has {listed!r}")
    return bool(listed[layer])


def _ropes(raw: Mapping[str, Any], model: Architecture, dim: int, windows: tuple[int, ...]) -> tuple[Rope | None, ...]:
    """Per layer, its rotation; None where a layer has none."""
    layers = raw["num_hidden_layers"]
    stated = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(stated, dict):
        raise ConfigError(f"rope_parameters must be an object, config.json has {stated!r}")
    theta = raw.get("rope_theta") or model.theta
    if model.window == "sixth":  # Gemma 3: one rotation for the layers that see all, another for those with a window
        whole = stated if set(stated) - set(LAYER_TYPES) else stated.get("full_attention") or {}
        local = stated.get("sliding_attention") or {}
        ropes = (
            Rope.from_hf(whole, dim, theta),
            Rope.from_hf(local, dim, raw.get("rope_local_base_freq") or 10000.0),
        )
        return tuple(ropes[window > 0] for window in windows)
    rope = Rope.from_hf(stated, dim, theta)
    return tuple(rope if model.window != "nope" or _has_rope(raw, layer) else None for layer in range(layers))


def _positive_int(raw: Mapping[str, Any], name: str, default: int | None = None) -> int:
    value = raw.get(name) if raw.get(name) is not None else default
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(f"config.json needs {name} as a positive integer, it has {value!r}")
    return value
