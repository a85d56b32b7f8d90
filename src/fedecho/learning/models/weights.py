"""Pretrained weights from their files, under the names that `transformers` gives them. Nothing is unpickled."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...core.errors import DataError, MissingExtra
from ...data.tokens import WEIGHTS_BYTES


def llama2c(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model of llama2.c: the settings of a `LlamaConfig`, and its weights.

    The file begins with seven int32 (width, hidden width, layers, heads, key heads, vocabulary, length); a positive
    vocabulary says that the output shares the embedding. float32 follow, kind after kind, each for all layers.

    Raises:
        DataError: it is not such a file.
    """
    raw = path.read_bytes()[:WEIGHTS_BYTES]
    if len(raw) < 28:
        raise DataError(f"{path} is damaged: it has {len(raw)} bytes; delete its folder and load it again")
    dim, hidden, layers, heads, key_heads, vocabulary, length = struct.unpack_from("<7i", raw)
    numbers = torch.from_numpy(np.frombuffer(raw, np.float32, offset=28).copy())
    head = dim // heads
    shapes = {
        "model.embed_tokens.weight": (vocabulary, dim),
        "input_layernorm.weight": (layers, dim),
        "self_attn.q_proj.weight": (layers, dim, dim),
        "self_attn.k_proj.weight": (layers, key_heads * head, dim),
        "self_attn.v_proj.weight": (layers, key_heads * head, dim),
        "self_attn.o_proj.weight": (layers, dim, dim),
        "post_attention_layernorm.weight": (layers, dim),
        "mlp.gate_proj.weight": (layers, hidden, dim),
        "mlp.down_proj.weight": (layers, dim, hidden),
        "mlp.up_proj.weight": (layers, hidden, dim),
        "model.norm.weight": (dim,),
    }
    wanted, rotary = sum(int(np.prod(shape)) for shape in shapes.values()), length * head  # cosines and sines
    if vocabulary < 0 or len(numbers) != wanted + rotary:
        raise DataError(
            f"{path} is damaged: {len(numbers):,} numbers, expected {wanted + rotary:,} with a shared output; delete "
            "its folder and load it again"
        )
    weights, at = {}, 0
    for name, shape in shapes.items():
        size = int(np.prod(shape))
        part, at = numbers[at : at + size].view(shape), at + size
        if name.startswith("model."):
            weights[name] = part
            continue
        for layer in range(layers):
            weights[f"model.layers.{layer}.{name}"] = part[layer]
    settings = {
        "hidden_size": dim, "intermediate_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "vocab_size": vocabulary, "max_position_embeddings": length,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
    }  # fmt: skip
    return settings, _split(weights, heads, key_heads)


GGUF = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
}


def gguf(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """A model of the Llama family in GGUF with a shared output: the settings of a `LlamaConfig`, and its weights as
    float32, whatever they are quantized to.

    Raises:
        DataError: it is not such a file.
        MissingExtra: needs the extra `text`.
    """
    try:
        from gguf import GGUFReader, dequantize
    except ImportError:
        raise MissingExtra(f"{path.name} (its weights are in GGUF)", "text") from None
    try:
        reader = GGUFReader(path)
        weights = {}
        for tensor in reader.tensors:
            block, number, rest = "", "", tensor.name
            if tensor.name.startswith("blk."):
                block, number, rest = tensor.name.split(".", 2)
            name = f"model.layers.{number}.{GGUF[rest]}" if block else GGUF[rest]
            weights[name] = torch.from_numpy(np.array(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32))

        def read(name: str) -> Any:
            field = reader.fields[f"llama.{name}"]
            return field.parts[field.data[0]][0].item()

        heads, key_heads = read("attention.head_count"), read("attention.head_count_kv")
        settings = {
            "hidden_size": read("embedding_length"), "intermediate_size": read("feed_forward_length"),
            "num_hidden_layers": read("block_count"), "num_attention_heads": heads, "num_key_value_heads": key_heads,
            "vocab_size": len(weights["model.embed_tokens.weight"]), "max_position_embeddings": read("context_length"),
            "rms_norm_eps": read("attention.layer_norm_rms_epsilon"), "tie_word_embeddings": True,
            "rope_theta": read("rope.freq_base"), "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
        }  # fmt: skip
    except (KeyError, ValueError, IndexError) as error:
        raise DataError(f"{path} cannot be read as a Llama in GGUF ({error!r}); load it again") from error
    return settings, _split(weights, heads, key_heads)


def _split(weights: dict[str, Tensor], heads: int, key_heads: int) -> dict[str, Tensor]:
    """Queries and keys for rotary embeddings that turn a head's first half against its second. Both formats turn each
    even number against the odd one that follows it."""
    for name, weight in weights.items():
        for kind, count in (("q_proj", heads), ("k_proj", key_heads)):
            if f".{kind}." in name:
                rows, wide = weight.shape
                parts = weight.view(count, rows // count // 2, 2, wide).transpose(1, 2)
                weights[name] = parts.reshape(rows, wide)
    return weights
