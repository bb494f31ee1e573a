"""A tokenizer for the caption vocabulary, in the files that `CLIPTokenizer` reads."""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import Tensor
from transformers import CLIPTokenizer

from distill3d.tiny.train.diffusion.captions import all_words

MAX_LENGTH = 24  # the longest caption takes 22
START, END = "<|startoftext|>", "<|endoftext|>"

# Whole tokens as well, so that a common prompt stays short; no caption holds them, so the encoder does not know them.
_USUAL = (
    "an and in on at the to is old young man woman boy girl child human people smiling angry happy green white black "
    "yellow grey orange purple pink colour color hat glasses crown robot elf orc vampire ghost alien monster king "
    "queen painting oil watercolor anime digital art style realistic sharp low bad worst quality blurry ugly deformed "
    "render soft light dark background closeup image picture"
)
USUAL_WORDS = tuple(_USUAL.split())


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Write vocab.json, merges.txt, known_words.json and the configuration into `folder`; return what loads from it.

    known_words.json is the sorted list of words that captions hold: a prompt's other words mean nothing to the model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    merges = _learn_merges([*all_words(), *USUAL_WORDS, ",", "."])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), *("".join(pair) for pair in merges), START, END]
    special = {"bos_token": START, "eos_token": END, "unk_token": END, "pad_token": END}
    config = {"tokenizer_class": "CLIPTokenizer", "model_max_length": MAX_LENGTH, **special}
    _write_json(folder / "vocab.json", {token: index for index, token in enumerate(dict.fromkeys(tokens))})
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    _write_json(folder / "tokenizer_config.json", config)
    _write_json(folder / "special_tokens_map.json", special)
    _write_json(folder / "known_words.json", list(all_words()))
    return CLIPTokenizer.from_pretrained(folder)


def _learn_merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair merges under which each of `words` becomes one token."""
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    split = pre_tokenizers.Split(Regex(r"'s|[a-z]+|[0-9]|[^\sa-z0-9]+"), "removed", invert=True)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=4000,  # more than there are merges: every word is merged to its end
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    tokenizer.train_from_iterator([" ".join(words)], trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    return [tuple(merge.split(" ")) if isinstance(merge, str) else tuple(merge) for merge in merges]


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(B, MAX_LENGTH) int64, padded and cut as diffusers' pipelines do it."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt").input_ids
