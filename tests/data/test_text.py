"""Text: tokenizers, data sets, natural splits, U of text, and the senders' own hours; on the real data."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fedecho.config.config import Config
from fedecho.core.errors import ConfigError, DataError
from fedecho.core.keys import Key
from fedecho.data import features, natural, tokens
from fedecho.data.datasets import bbc_news, chat, imdb, sentiment, text_datasets
from fedecho.data.derived import DerivedCache
from fedecho.data.features import embed
from fedecho.data.federation import DataConfig, Federation, federation
from fedecho.data.fetch import fetch
from fedecho.data.source import Scale, Source
from fedecho.data.sources import is_text, load, names
from fedecho.data.unlabeled import unlabeled
from fedecho.experiment.build import prepare

needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm, which downloads it, is not installed")
pytest.importorskip("tokenizers", reason="the extra `text` is not installed")

SAID = "Once upon a time, there was a little girl named Lily."


# ----------------------------------------------------------------------------------------------------------- tokenizers


@pytest.mark.parametrize(
    ("name", "size"),
    [("characters", 98), pytest.param("tinystories", 32_000, marks=needs_npm), ("smollm2", 49_152)],
)
def test_what_is_encoded_is_decoded(name: str, size: int) -> None:
    by = tokens.tokenizer(name)
    assert by.size == size
    plain = f"  {SAID}\nTwo  spaces; a line's end: \n\n(1) {{x}} ~ \\"
    assert by.decode(by.encode(plain)) == plain
    assert all(0 <= i < size for i in by.encode(plain))
    if name != "characters":
        assert by.decode(by.encode("A café, naïve, 日本 🙂")) == "A café, naïve, 日本 🙂"
    assert len(by.encode(SAID, 5)) == 5
    assert by.encode(SAID, 5) == by.encode(SAID)[:5]
    assert by.encode(SAID, 500) == by.encode(SAID)


@needs_npm
def test_tinystories_tokens_are_those_of_llama() -> None:
    """The tokens of Llama 2's 32,000 pieces, which that model was trained on; a piece's number is its row there."""
    by = tokens.tokenizer("tinystories")
    assert by.encode("Hello world") == [1, 15043, 3186]
    assert by.encode(SAID) == [1, 9038, 2501, 263, 931, 29892, 727, 471, 263, 2217, 7826, 4257, 365, 2354, 29889]
    assert by.encode("\n🙂") == [1, 29871, 13, 243, 162, 156, 133], "bytes where there is no piece"


def test_minilm_keeps_the_token_that_ends_a_text() -> None:
    by = tokens.tokenizer("minilm")
    assert by.encode(SAID)[:3] == [101, 2320, 2588]
    assert by.encode(SAID, 4) == [101, 2320, 2588, 102]
    assert by.decode(by.encode(SAID)) == SAID.lower()


def test_unknown_characters_and_tokenizers() -> None:
    by = tokens.tokenizer("characters")
    assert by.decode(by.encode("né\n")) == "n\N{REPLACEMENT CHARACTER}\n"
    with pytest.raises(ConfigError, match="'words' is unknown; choose from characters, minilm"):
        tokens.tokenizer("words")
    with pytest.raises(DataError, match="cannot be loaded"):
        tokens.tokenizer("hf:./nothing here")


def test_windows_ask_for_every_token_but_the_first_once() -> None:
    by = tokens.tokenizer("characters")
    for said in ("", "a", "ab", "abcde", "abcdefghi", SAID):
        inputs, labels = tokens.windows(said, by, 4)
        assert inputs.shape == labels.shape
        asked = labels != -100
        assert by.decode(labels[asked].tolist()) == said[1:]
        assert by.decode(inputs[asked].tolist()) == said[:-1]
        assert bool((inputs[~asked] == by.pad).all())


def test_rows_are_filled() -> None:
    by = tokens.tokenizer("characters")
    made = tokens.rows(["abc", "", "abcdef"], by, 4)
    assert made.dtype == torch.int64
    assert made.tolist() == [[*by.encode("abc"), 0], [0] * 4, by.encode("abcd")]


# ------------------------------------------------------------------------------------------------------------ data sets


def words(name: str, **settings: Any) -> Source:
    return load(name, None, "minilm", 32, **settings)


@pytest.mark.parametrize(
    ("name", "train", "test", "classes"),
    [
        ("bbc_news", 1701, 426, 5),
        pytest.param("imdb", 25_000, 25_000, 2, marks=[needs_npm, pytest.mark.slow]),
        ("newsgroups", 11_293, 7528, 20),
        ("reuters_r8", 5485, 2189, 8),
        ("reuters_r52", 6532, 2568, 52),
        ("sentiment", 18_962, 4741, 2),
    ],
)
def test_texts_with_classes(name: str, train: int, test: int, classes: int) -> None:
    source = words(name)
    assert (source.inputs.shape, source.test_inputs.shape) == ((train, 32), (test, 32))
    assert (source.classes, source.causal, source.tokenizer, source.pad) == (classes, False, "minilm", 0)
    assert set(source.labels.tolist()) == set(source.test_labels.tolist()) == set(range(classes))
    assert bool((source.inputs[:, 0] == 101).all())
    again = words(name)
    assert torch.equal(source.inputs, again.inputs)
    assert torch.equal(source.test_labels, again.test_labels)


def test_no_story_of_bbc_news_is_in_both_parts() -> None:
    said = bbc_news.bbc_news(fetch("bbc_news"))
    assert not set(said.texts) & set(said.test_texts)
    train, test = np.bincount(said.labels), np.bincount(said.test_labels)
    assert np.abs(test / (train + test) - 0.2).max() < 0.003, "a fifth of each section"
    shuttle = said.labels[next(i for i, story in enumerate(said.texts) if story.startswith("Ad sales boost"))]
    assert said.classes[shuttle] == "business"


@needs_npm
def test_imdb_is_split_as_its_authors_split_it() -> None:
    said = imdb.imdb(fetch("imdb"))
    assert said.texts[0].startswith("Story of a man who has unnatural feelings for a pig")  # train/neg/0_3
    assert said.texts[12_500].startswith("Bromwell High is a cartoon comedy")  # train/pos/0_9
    assert said.test_texts[0].startswith("Once again Mr. Costner")  # test/neg/0_2
    assert (sum(said.labels), sum(said.test_labels)) == (12_500, 12_500)


def test_sentiment_has_four_domains_and_natural_sources() -> None:
    said = sentiment.sentiment(fetch("sentiment"))
    count = {domain: sum(owner[0] == domain for owner in said.who) for domain in sentiment.DOMAINS}
    assert count == {"amazon": 300, "movies": 531, "nyt": 498, "tweets": 210}
    assert len(said.texts) + len(said.test_texts) == 3708 + 10_605 + 5190 + 4200
    whose = np.bincount(said.owners, minlength=1539) + np.bincount(said.test_owners, minlength=1539)
    shards = [owner for owner, who in enumerate(said.who) if who[1].startswith("shard")]
    assert set(whose[shards].tolist()) <= {20, 5}
    for sentence, label, who in (
        ("Effective but too tepid biopic", 0, ("movies", "shard 1")),
        ("repost from january 13, 2004 with a better fit title.", 0, ("amazon", "1")),
    ):
        row = said.texts.index(sentence)
        assert (said.labels[row], said.who[said.owners[row]]) == (label, who)


def test_shakespeares_roles() -> None:
    source = load("shakespeare", None, "characters", 64)
    assert source.causal
    assert source.classes == 98
    assert source.owners is not None
    assert source.test_owners is not None
    assert source.domains is not None
    assert len(source.owner_names) == len(source.domains) == 431
    assert len(source.domain_names) == 36
    hamlet = source.owner_names.index("HAM, hamlet")
    said = tokens.tokenizer("characters").decode(source.inputs[source.owners == hamlet].flatten().tolist())
    assert "To be, or not to be" in said
    assert "[" not in said, "no stage directions"
    assert set(source.owners.tolist()) == set(source.test_owners.tolist()) == set(range(431))


def test_chat_has_senders_and_their_hours() -> None:
    said = chat.chat(fetch("chat"))
    assert said.hours is not None
    assert len(said.texts) == len(said.hours) == 471
    assert all(0 < len(hours) <= 24 and list(hours) == sorted(set(hours)) for hours in said.hours.values())
    by_hour = np.bincount([hour for hours in said.hours.values() for hour in hours], minlength=24)
    assert by_hour.argmin() in range(8, 12), "at night in Utah nobody writes"
    assert by_hour.max() > 5 * by_hour.min()
    assert chat.active_hours({3: 8, 4: 1, 9: 1}) == (3, 4)


def test_every_text_says_what_it_needs() -> None:
    assert {name for name in names() if is_text(name)} == set(text_datasets())
    with pytest.raises(ConfigError, match=r"is text, and nothing says how to cut it.*characters, minilm"):
        load("bbc_news")
    with pytest.raises(ConfigError, match="need texts with classes"):
        load("shakespeare", features="minilm")
    with pytest.raises(ConfigError, match="'digits' is none"):
        load("digits", features="minilm")


def test_damaged_texts_say_what_to_delete(tmp_path: Path) -> None:
    for name, entry in text_datasets().items():
        (tmp_path / entry.archive).mkdir(exist_ok=True)
        with pytest.raises(DataError, match="load it again"):
            load(name, tmp_path, "characters")
    (tmp_path / "imdb" / "reviews.json").write_text('[{"t": "good", "s": 1}, {"t": "bad", "s": 0}]')
    with pytest.raises(DataError, match="not in the order we know"):
        load("imdb", tmp_path, "characters")


def test_features_are_unit_vectors_of_the_text_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    (tmp_path / "minilm").symlink_to(fetch("minilm"))
    by = tokens.tokenizer("minilm")
    said = ["A dog runs in the park.", "The puppy is running outside.", "Interest rates rose by a quarter point."]
    rows, kept = tokens.rows(said, by, 16), DerivedCache(tmp_path)
    made = embed("minilm", rows, by.pad, kept)
    assert made.shape == (3, 384)
    assert torch.allclose(made.norm(dim=1), torch.ones(3), atol=1e-5)
    alike, unlike = float(made[0] @ made[1]), float(made[0] @ made[2])
    assert alike > 0.5 > 0.2 > unlike
    longer = embed("minilm", tokens.rows(said, by, 24), by.pad, kept)
    assert torch.allclose(made, longer, atol=1e-5), "what fills a text changes nothing"
    monkeypatch.setattr(features, "fetch", None)  # it is not asked for again
    assert torch.equal(embed("minilm", rows, by.pad, kept), made)


def test_features_are_normalised_by_the_train_part() -> None:
    train = torch.from_numpy(Key(0).numpy().normal(3.0, 0.02, (500, 4))).float()
    train[:, 3] = 7.0  # a constant feature stays finite
    scale = Scale.of(train)
    made = scale(train)
    assert torch.allclose(made.mean(0), torch.zeros(4), atol=1e-4)
    assert torch.allclose(made.std(0, correction=0), torch.tensor([1.0, 1.0, 1.0, 0.0]), atol=1e-4)
    assert torch.equal(scale(train[:3]), made[:3]), "another part: by the same numbers"


# --------------------------------------------------------------------------------------------------------------- splits


def toy(owners: list[int], domains: list[int] | None = None) -> Source:
    n = len(owners)
    inputs = torch.arange(n, dtype=torch.float32)[:, None]
    whose = torch.tensor(owners)
    groups = None if domains is None else torch.tensor(domains)
    labels = torch.zeros(n, dtype=torch.int64)
    return Source("toy", inputs, labels, inputs, labels, 2, owners=whose, test_owners=whose, domains=groups)


def test_natural_takes_those_with_most_data() -> None:
    source = toy([0, 1, 1, 1, 2, 2, 3, 3])
    who, rows = natural.partition(source, np.arange(8), 3, "natural", Key(0))
    assert who == [1, 2, 3]
    assert [own.tolist() for own in rows] == [[1, 2, 3], [4, 5], [6, 7]]
    who, rows = natural.partition(source, np.array([0, 1, 2, 4, 6, 7]), 2, "natural", Key(0), min_examples=2)
    assert who == [1, 3], "of owner 2 too little is left"
    assert [own.tolist() for own in rows] == [[1, 2], [4, 5]], "places in `part`"
    assert [len(own) for own in natural.partition(source, np.arange(8), 3, "natural", Key(0), max_examples=2)[1]] == [
        2
    ] * 3
    with pytest.raises(ConfigError, match=r"data.clients \(5\) exceeds the 4 owners"):
        natural.partition(source, np.arange(8), 5, "natural", Key(0))
    with pytest.raises(ConfigError, match="whose owners are known"):
        natural.partition(dataclasses.replace(source, owners=None), np.arange(8), 2, "natural", Key(0))
    with pytest.raises(ConfigError, match="two domains or more"):
        natural.partition(source, np.arange(8), 2, "natural_coupled", Key(0), slow=[0])


def test_natural_takes_from_all_domains_alike() -> None:
    source = toy([0, 0, 0, 1, 1, 1, 2, 2, 3], [0, 0, 1, 1])
    assert natural.partition(source, np.arange(9), 2, "natural", Key(0))[0] == [0, 2]
    assert natural.partition(source, np.arange(9), 3, "natural", Key(0))[0] == [0, 2, 1]


@pytest.mark.parametrize("seed", range(5))
def test_slow_clients_are_of_the_same_domains(seed: int) -> None:
    domains = [owner // 4 for owner in range(24)]  # 6 domains of 4 owners
    source, slow = toy(sorted(list(range(24)) * 3), domains), [1, 5, 9, 13, 14, 20]
    who, _ = natural.partition(source, np.arange(72), 24, "natural_coupled", Key(seed), slow=slow)
    assert sorted(who) == list(range(24))
    theirs = sorted(np.bincount([domains[who[client]] for client in slow], minlength=6).tolist())
    assert theirs == [0, 0, 0, 0, 2, 4], "a whole domain, and half of another"
    with pytest.raises(ConfigError, match="0 of 24 are"):
        natural.partition(source, np.arange(72), 24, "natural_coupled", Key(seed))


def test_which_domains_are_slow_is_the_keys_choice() -> None:
    source = toy(list(range(12)), [owner // 2 for owner in range(12)])
    deal = [natural.partition(source, np.arange(12), 12, "natural_coupled", Key(s), slow=[0, 1])[0] for s in range(8)]
    assert len({tuple(sorted(who[:2])) for who in deal}) > 2


def roles(**settings: Any) -> tuple[DataConfig, Federation]:
    given = {"partition": "natural_coupled", "clients": 60, "unlabeled_size": 40, **settings}
    config = DataConfig(dataset="shakespeare", **given)
    return config, federation(config, Key(3), range(8), tokenizer="characters")


def test_a_federation_of_roles() -> None:
    source = load("shakespeare", None, "characters", 64)
    config, data = roles(validation=30, max_examples=100)
    assert (data.causal, data.pad, data.tokenizer, data.clients, data.classes) == (True, 0, "characters", 60, 98)
    assert max(np.diff(data.offsets)) == 100
    assert data.unlabeled.shape == (40, 64)
    assert data.validation[0].shape == data.validation[1].shape == (30, 64)
    assert data.test_clients is not None
    assert set(data.test_clients.tolist()) == set(range(60)), "each is judged on its own text, and nobody else is there"
    assert source.owners is not None
    assert source.test_owners is not None
    assert source.domains is not None
    owner_of = {tuple(row): int(owner) for row, owner in zip(source.inputs.tolist(), source.owners, strict=True)}
    for client in (0, 30, 59):
        own = data.inputs[data.offsets[client] : data.offsets[client + 1]].tolist()
        assert len({owner_of[tuple(row)] for row in own}) == 1
        owner = owner_of[tuple(own[0])]
        theirs = source.test_inputs[source.test_owners == owner]
        assert torch.equal(data.test[0][data.test_clients == client], theirs)
    held = {tuple(row) for row in torch.cat([data.unlabeled, data.validation[0]]).tolist()}
    assert not held & {tuple(row) for row in data.inputs.tolist()}, "what is held out is nobody's"
    _, some = roles(test_size=200)
    assert some.test[0].shape == (200, 64)
    assert some.test_clients is not None
    assert len(some.test_clients) == 200
    assert config.tokenizer is None


def test_running_text_is_not_dealt_by_label() -> None:
    with pytest.raises(ConfigError, match=r"'dirichlet_mix' deals by label.*take iid, quantity, natural"):
        roles(partition="dirichlet_mix")
    for split in ("iid", "quantity"):
        _, data = roles(partition=split)
        assert data.clients == 60
        assert data.test_clients is None
        assert len(data.inputs) == 46_405 - 40


@pytest.mark.parametrize(
    ("settings", "models", "message"),
    [
        (
            {"dataset": "bbc_news", "tokenizer": "characters"},
            "minilm",
            "leave data.tokenizer out, or take another model",
        ),
        ({"dataset": "bbc_news", "features": "minilm"}, "minilm", "leave the features out"),
        ({"dataset": "bbc_news", "features": "minilm", "tokenizer": "smollm2"}, None, "brings its own; leave it out"),
        ({"dataset": "digits", "tokenizer": "minilm"}, None, "'digits' is no text; leave it out"),
        ({"dataset": "digits", "features": "minilm"}, None, "data.features is 'minilm', and 'digits' is no text"),
        ({"dataset": "digits"}, "minilm", "the model takes tokens"),
        ({"dataset": "bbc_news"}, None, "nothing says how to cut it"),
    ],
)
def test_one_tokenizer(settings: dict[str, Any], models: str | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        federation(DataConfig(**settings), Key(0), tokenizer=models)


@pytest.mark.parametrize(
    ("table", "faults"),
    [
        ({"tokenizer": "words", "features": "bert"}, ["data.tokenizer 'words' is unknown", "data.features is 'bert'"]),
        ({"length": 0, "test_size": 0}, ["data.length is 0", "data.test_size is 0"]),
    ],
)
def test_settings_of_text_are_checked(table: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_dict({"experiment": {"updates": 1}, "data": table})
    assert all(fault in str(caught.value) for fault in faults)
    assert len(str(caught.value).splitlines()) == 2


# -------------------------------------------------------------------------------------------------------------------- U


def public(kind: str, size: int = 20, **settings: Any) -> torch.Tensor:
    config = DataConfig(
        dataset="bbc_news", clients=5, unlabeled=kind, unlabeled_size=size, length=32, tokenizer="minilm", **settings
    )
    return federation(config, Key(1)).unlabeled


def test_u_of_another_domain_is_made_of_the_same_tokens() -> None:
    source, other = words("bbc_news"), words("reuters_r8")
    u = public("dataset:reuters_r8")
    there = {tuple(row) for row in other.inputs.tolist()}
    assert u.shape == (20, 32)
    assert {tuple(row) for row in u.tolist()} <= there
    held = {tuple(row) for row in public("held_out").tolist()}
    assert held <= {tuple(row) for row in source.inputs.tolist()}


@pytest.mark.parametrize("kind", ["mixup", "noise", "fractals", "dead_leaves"])
def test_no_numbers_for_tokens(kind: str) -> None:
    with pytest.raises(ConfigError, match=r"makes numbers, and 'bbc_news' is text.*use 'held_out'"):
        public(kind)


def test_u_of_pictures_is_none_for_text_and_the_reverse() -> None:
    with pytest.raises(ConfigError, match="is no text, and 'bbc_news' is"):
        public("dataset:digits")
    with pytest.raises(ConfigError, match="is text, and 'digits' is none"):
        federation(DataConfig(unlabeled="dataset:bbc_news"), Key(0))


def test_u_of_features_is_embedded_alone() -> None:
    """Of the other data set only what is taken."""
    nothing = torch.zeros(5, 384), torch.zeros(5, dtype=torch.int64)
    made = {}
    for mean, std in ((0.0, 1.0), (0.5, 2.0)):
        scale = Scale(torch.full((384,), mean), torch.full((384,), std))
        source = Source("toy", *nothing, *nothing, 2, tokenizer="minilm", length=16, features="minilm", scale=scale)
        made[mean] = unlabeled("dataset:bbc_news", 12, source, np.arange(5), Key(2))
        assert made[mean].shape == unlabeled("noise", 12, source, np.arange(5), Key(2)).shape == (12, 384)
    assert torch.allclose(made[0.0].norm(dim=1), torch.ones(12), atol=1e-5)
    assert torch.allclose(made[0.5], (made[0.0] - 0.5) / 2), "normalised as the source's are"
    with pytest.raises(ConfigError, match="needs images"):
        unlabeled("fractals", 12, source, np.arange(5), Key(2))


def test_u_from_a_file_of_tokens(tmp_path: Path) -> None:
    ids = np.arange(30 * 32).reshape(30, 32)
    np.save(tmp_path / "u.npy", ids.astype(np.int32))
    u = public(f"file:{tmp_path}/u.npy")
    assert u.dtype == torch.int64
    assert torch.equal(u, torch.from_numpy(ids)[:20])
    np.save(tmp_path / "u.npy", ids + 30_000)
    with pytest.raises(DataError, match="'minilm' has 0 to 30521"):
        public(f"file:{tmp_path}/u.npy")
    np.save(tmp_path / "u.npy", ids.astype(np.float32))
    with pytest.raises(DataError, match="give one tensor of integers, token ids"):
        public(f"file:{tmp_path}/u.npy")


# ------------------------------------------------------------------------------------------------------------- presence


def test_senders_are_there_at_their_own_hours() -> None:
    tables: dict[str, Any] = {
        "experiment": {"updates": 1},
        "data": {"dataset": "chat", "partition": "natural", "clients": 40, "tokenizer": "characters", "max_examples": 4,
                 "test_size": 50, "unlabeled_size": 4},
        "model": {"name": "mlp"},
        "server": {"concurrency": 4, "buffer_size": 2},
        "population": {"availability": "data", "day_s": 24.0},
    }  # fmt: skip
    data = federation(Config.from_dict(tables).data, Key(0))
    said = chat.chat(fetch("chat"))
    assert data.hours is not None
    assert said.hours is not None
    assert set(data.hours) <= set(said.hours.values())
    biggest = max(said.texts, key=lambda who: len(said.texts[who]))
    assert data.hours[0] == said.hours[biggest]
    tables["data"]["partition"] = "iid"
    with pytest.raises(ConfigError, match="does not say when its clients are active; take chat and a natural split"):
        prepare(Config.from_dict(tables))
