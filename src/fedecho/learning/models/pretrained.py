"""Pretrained language models by `transformers`, trained through adapters.

What is not trained is frozen and never travels. Low-rank adapters (LoRA: Hu et al. 2021, arXiv 2106.09685) write the
change of a matrix as (alpha/rank)·B·A. A server that averages the clients' A and B apart does not average their
changes: mean(B)·mean(A) ≠ mean(B·A). With `freeze_a` A stays as it was drawn, only B is trained, and the two agree;
half as much travels (FFA-LoRA: Sun et al. 2024, arXiv 2403.12313).
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError, DataError, MissingExtra

Train = Literal["lora", "head", "all"]


class Pretrained(nn.Module):
    """Token ids to logits, by a model of `transformers`.

    Attributes:
        drawn: frozen parameters that are not pretrained but were drawn by this run.
    """

    def __init__(self, inner: nn.Module, classes: int, pad: int | None) -> None:
        super().__init__()
        self.inner, self.classes, self.pad = inner, classes, pad
        self.drawn: frozenset[str] = frozenset()


class Causal(Pretrained):
    """A language model: logits [B, L, V]. Padding comes last, so no real token attends to it."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, L, V] for tokens [B, L]."""
        logits: Tensor = self.inner(input_ids=tokens, use_cache=False).logits
        return logits[..., : self.classes]

    def step(self, tokens: Tensor, past: object = None) -> tuple[Tensor, object]:
        """Logits [B, V] of the token after tokens [B, l], which follow the cache `past`; and the new cache."""
        known = inspect.signature(self.inner.forward).parameters  # the argument's name changed in transformers 5
        name = "cache" if "cache" in known else "past_key_values"
        output = self.inner(input_ids=tokens, use_cache=True, **{name: past})
        return output.logits[:, -1, : self.classes], output[name]


class Classifier(Pretrained):
    """A classifier of texts with a head of its own kind: logits [B, C]."""

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, C] for tokens [B, L]."""
        tokens, mask = token_mask(tokens, self.pad)
        logits: Tensor = self.inner(input_ids=tokens, attention_mask=mask).logits
        return logits


class Encoder(Pretrained):
    """A text encoder with a linear head on the mean of its last states: logits [B, C]."""

    def __init__(self, inner: nn.Module, width: int, classes: int, pad: int | None) -> None:
        super().__init__(inner, classes, pad)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits [B, C] for tokens [B, L]."""
        tokens, mask = token_mask(tokens, self.pad)
        states = self.inner(input_ids=tokens, attention_mask=mask).last_hidden_state
        weights = mask.unsqueeze(-1).to(states.dtype)
        logits: Tensor = self.head((states * weights).sum(1) / weights.sum(1).clamp(min=1))
        return logits


def token_mask(tokens: Tensor, pad: int | None) -> tuple[Tensor, Tensor]:
    """The tokens up to the longest text of the batch, and a mask of those that are no padding."""
    if pad is None:
        return tokens, torch.ones_like(tokens)
    mask = (tokens != pad).long()
    mask[:, 0] = 1  # an empty text has one token, else attention would have nothing to look at
    longest = int((mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).max())
    return tokens[:, :longest], mask[:, :longest]


def adapted(
    module: Pretrained,
    new: Sequence[str],
    train: Train = "lora",
    rank: int = 8,
    alpha: int = 16,
    targets: str | Sequence[str] = ("q_proj", "v_proj"),
    freeze_a: bool = False,
) -> Pretrained:
    """The module with all frozen but what `train` says, "lora" (adapters and the new head), "head" or "all".

    Args:
        module: with a pretrained `inner`.
        new: what the names of new parameters begin with: a head's.
        train: what is trained.
        rank: r of the adapters.
        alpha: the change is alpha/rank·B·A.
        targets: the linear layers that get adapters, by the last part of their names; "all-linear" is all of them but
            the new ones and the one that gives a language model's logits.
        freeze_a: only B is trained.

    Raises:
        ConfigError: settings that do not fit the module or each other.
        MissingExtra: adapters need the extra `text`.
    """
    if train not in ("lora", "head", "all"):
        raise ConfigError(f"model.train is {train!r}; it must be 'lora', 'head' or 'all'")
    if train == "head" and not new:
        raise ConfigError("model.train is 'head', and a language model has no new head; take 'lora' or 'all'")
    if rank < 1 or alpha <= 0:
        raise ConfigError(f"model.rank ({rank}) must be at least 1 and model.alpha ({alpha}) above 0")
    for part in module.modules():
        if isinstance(part, nn.Dropout):  # a client sees little of its data more than once or twice
            part.p = 0.0
    if train == "lora":
        _add_lora(module.inner, rank, alpha, targets, [name.removeprefix("inner.") for name in new])
    for name, parameter in module.named_parameters():
        lora = "lora_B" in name or ("lora_A" in name and not freeze_a)
        parameter.requires_grad_(train == "all" or name.startswith(tuple(new)) or (train == "lora" and lora))
    if train == "lora" and freeze_a:
        module.drawn = frozenset(name for name, _ in module.named_parameters() if "lora_A" in name)
    return module


def _add_lora(inner: Any, rank: int, alpha: int, targets: str | Sequence[str], new: Sequence[str]) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise MissingExtra("model.train = 'lora'", "text") from None
    wanted = (targets,) if isinstance(targets, str) else tuple(targets)
    inner_: Any = inner
    out = inner_.get_output_embeddings() if hasattr(inner, "get_output_embeddings") else None
    linear = {
        name: part
        for name, part in inner.named_modules()
        if (isinstance(part, nn.Linear) or type(part).__name__ == "Conv1D")
        and part is not out
        and not name.startswith(tuple(new))
        and f"{name}." not in new
    }
    chosen = [name for name in linear if wanted == ("all-linear",) or name.rpartition(".")[2] in wanted]
    if not chosen:
        layers = sorted({name.rpartition(".")[2] for name in linear})
        raise ConfigError(f"model.targets ({', '.join(wanted)}) are no layers of the model; it has {', '.join(layers)}")
    transposed = type(linear[chosen[0]]).__name__ == "Conv1D"  # GPT-2's
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=chosen, lora_dropout=0.0, fan_in_fan_out=transposed)
    inject_adapter_in_model(config, inner)


def check_inputs(what: str, causal: bool, wanted: bool, shape: Sequence[int]) -> None:
    if len(shape) != 1:
        raise ConfigError(
            f"{what} takes token ids [length], got inputs of shape {tuple(shape)}; take a text data set, without "
            "data.features"
        )
    if causal != wanted:
        kinds = ("a classifier of texts", "a language model")
        raise ConfigError(f"{what} is {kinds[wanted]}, and the data set asks for {kinds[causal]}; take another model")


def hugging_face(name: str) -> Callable[..., nn.Module]:
    """The builder of any model of the hub, or of a local folder ("./folder"), which is never looked for elsewhere."""

    def build(
        shape: Sequence[int],
        classes: int,
        causal: bool = False,
        pad: int | None = None,
        train: Train = "lora",
        rank: int = 8,
        alpha: int = 16,
        targets: str | Sequence[str] = "all-linear",
        freeze_a: bool = False,
    ) -> nn.Module:
        check_inputs(f"hf:{name}", causal, causal, shape)
        if causal:
            inner, new = load_transformer("AutoModelForCausalLM", name, f"hf:{name}")
            vocabulary = int(inner.config.vocab_size)
            if vocabulary < classes:
                raise ConfigError(
                    f"hf:{name} knows {vocabulary:,} tokens, the data have {classes:,}; leave data.tokenizer out, so "
                    "that the model's own is taken"
                )
            return adapted(Causal(inner, classes, pad), new, train, rank, alpha, targets, freeze_a)
        inner, new = load_transformer("AutoModelForSequenceClassification", name, f"hf:{name}", num_labels=classes)
        if pad is not None:
            inner.config.pad_token_id = pad
        new += [f"inner.{head}." for head in ("classifier", "score", "classification_head") if hasattr(inner, head)]
        return adapted(Classifier(inner, classes, pad), new, train, rank, alpha, targets, freeze_a)

    return build


def llama(name: str, settings: dict[str, Any], weights: dict[str, Tensor]) -> nn.Module:
    try:
        from transformers import LlamaConfig, LlamaForCausalLM
    except ImportError:
        raise MissingExtra(f"model.name {name!r}", "text") from None
    with torch.device("meta"):
        inner: Any = LlamaForCausalLM(LlamaConfig(**settings))
    rotary = type(inner.model.rotary_emb)
    inner.load_state_dict(weights, strict=False, assign=True)
    inner.tie_weights()
    inner.model.rotary_emb = rotary(inner.config)  # not on the meta device: its values follow from the settings
    missing = [n for n, value in [*inner.named_parameters(), *inner.named_buffers()] if value.is_meta]
    if missing:
        raise DataError(f"{name}: its file lacks {', '.join(missing[:3])}; delete its folder and load it again")
    module: nn.Module = inner
    return module


def load_transformer(kind: str, where: str, name: str, **more: Any) -> tuple[Any, list[str]]:
    """A model by one of the Auto classes of `transformers`, float32, and the parameters that its files lack, which are
    new. Weights are read from safetensors alone."""
    try:
        import transformers
    except ImportError:
        raise MissingExtra(f"model.name {name!r}", "text") from None
    local = where.startswith((".", "/", "~"))
    try:
        with _quiet(transformers):
            inner, info = getattr(transformers, kind).from_pretrained(
                where,
                dtype=torch.float32,
                use_safetensors=True,
                local_files_only=local,
                output_loading_info=True,
                **more,
            )
            return inner, [f"inner.{missing}" for missing in sorted(info["missing_keys"])]
    except Exception as error:  # each of the hub client's layers raises its own
        reason = str(error).splitlines()[0] if str(error) else ""
        raise DataError(
            f"model.name {name!r} cannot be loaded: {type(error).__name__}: {reason}; check the name and the network, "
            "or give a local folder with safetensors as hf:./folder"
        ) from error


@contextlib.contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Without bars and reports on standard error; only the command line prints."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()
