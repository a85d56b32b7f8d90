"""Every model that ships is found by its name; inputs that do not suit it are told what to do."""

from __future__ import annotations

import pytest

from fedecho.core.errors import ConfigError
from fedecho.data import tokens
from fedecho.learning.models import MODELS, SHIPPED, TEXT, TOKENIZERS, build, tokenizer_of


@pytest.mark.parametrize("name", SHIPPED)
def test_a_model_is_found_by_its_name(name: str) -> None:
    model = SHIPPED[name]
    assert model.name == name
    assert MODELS[name] is model.build
    assert (model.build.__doc__ or "").strip()
    assert (name in TEXT) == model.text
    assert model.text == (model.tokenizer is not None)
    assert TOKENIZERS.get(name) in (*tokens.names(), None)


def test_the_tokenizer_that_a_model_brings() -> None:
    assert tokenizer_of("lstm") == "characters"
    assert tokenizer_of("lstm", "smollm2") == "smollm2"
    assert tokenizer_of("minilm", "characters") == "minilm"
    assert tokenizer_of("hf:./folder") == "hf:./folder"
    assert tokenizer_of("mlp") is None
    assert tokenizer_of("anybodys:Model", "characters") is None


@pytest.mark.parametrize("name", ["cnn", "lenet5", "resnet18"])
@pytest.mark.parametrize(
    ("shape", "remedy"),
    [
        ((28, 28, 3), r"channels last, .* give .*\[3, 28, 28\], by x\.permute\(0, 3, 1, 2\)"),
        ((28, 28), r"give \[1, 28, 28\] by x\[:, None\]"),
        ((64,), "use mlp"),
    ],
)
def test_images_in_another_layout_are_told_what_to_do(name: str, shape: tuple[int, ...], remedy: str) -> None:
    with pytest.raises(ConfigError, match=remedy):
        build(name, shape, 10, False, None, {})
    assert sum(p.numel() for p in build(name, (1, 28, 28), 10, False, None, {}).parameters()) > 0
