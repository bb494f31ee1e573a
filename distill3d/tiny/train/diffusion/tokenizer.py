"""A tokenizer for the caption vocabulary, in the files that `CLIPTokenizer` reads."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import pre_tokenizers
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


def _learn_merges(words: Iterable[str]) -> list[tuple[str, str]]:
    """Byte-pair merges under which each of `words` (ASCII) becomes one token.

    Always the most frequent pair, of equals the first in the alphabet: `tokenizers`' own trainer breaks ties at random,
    and a text encoder is worth nothing with another numbering.
    """
    split = [(*word[:-1], f"{word[-1]}</w>") for word in sorted(set(words))]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for pieces in split for pair in itertools.pairwise(pieces)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        split = [_merged(pieces, best) for pieces in split]
    return merges


def _merged(pieces: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    """`pieces` with every occurrence of `pair` joined, from the left."""
    done: list[str] = []
    for piece in pieces:
        if done and (done[-1], piece) == pair:
            done[-1] += piece
        else:
            done.append(piece)
    return tuple(done)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")


def token_ids(tokenizer: CLIPTokenizer, texts: list[str]) -> Tensor:
    """(B, MAX_LENGTH) int64, padded and cut as diffusers' pipelines do it."""
    return tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH, return_tensors="pt").input_ids
