"""CLIP's byte-pair encoding of text, shared by ImageBind and OpenCLIP (Radford et al. 2021; Sennrich et al. 2016).

The 48,894 merges in `clip_merges.txt.xz` are those of OpenAI's CLIP (MIT licence), most frequent first. A vocabulary is
256 byte signs, the same at the end of a word, one entry a merge, and the marks of start and end: 49,408 in all.
Differs: mojibake is not repaired as ftfy would; curly quotes, ligatures and full-width letters are.
"""

from __future__ import annotations

import html
import lzma
import re
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

LENGTH = 77
_MERGES = Path(__file__).with_name("clip_merges.txt.xz")
_END = "</w>"
_CONTRACTIONS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")
_MARKS = ("<|startoftext|>", "<|endoftext|>")
_PLAIN = str.maketrans(
    {"‘": "'", "’": "'", "‛": "'", "“": '"', "”": '"', "‟": '"', "ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi",
     "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st", **{chr(0xFF01 + i): chr(0x21 + i) for i in range(94)}}
)  # fmt: skip


def tokenise(texts: list[str]) -> NDArray[np.int64]:
    """B sentences -> (B, 77) ids: start, pieces, end, zeros; the end mark is kept where a sentence is cut."""
    start, end = _vocabulary()[_MARKS[0]], _vocabulary()[_MARKS[1]]
    out = np.zeros((len(texts), LENGTH), np.int64)
    for row, text in zip(out, texts, strict=True):
        ids = [start, *pieces(text)[: LENGTH - 2], end]
        row[: len(ids)] = ids
    return out


def pieces(text: str) -> list[int]:
    """Ids of a sentence without its marks."""
    ids = _vocabulary()
    return [ids[piece] for word in _words(clean(text)) for piece in _merged(word)]


def clean(text: str) -> str:
    """Unicode composed, quotes straight, HTML entities read twice, single spaces, lower case."""
    text = unicodedata.normalize("NFC", text.translate(_PLAIN))
    return re.sub(r"\s+", " ", html.unescape(html.unescape(text))).strip().lower()


def _words(text: str) -> Iterator[str]:
    """Marks, contractions, runs of letters, single numerals, runs of other signs: what is merged on its own."""
    at = 0
    while at < len(text):
        fixed = next((part for part in (*_MARKS, *_CONTRACTIONS) if text.startswith(part, at)), None)
        kind = _kind(text[at])
        end = at + 1
        if fixed is not None:
            end = at + len(fixed)
        elif kind != "numeral":
            while end < len(text) and _kind(text[end]) == kind:
                end += 1
        if kind != "space":
            yield text[at:end]
        at = end


def _kind(sign: str) -> str:
    if sign.isspace():
        return "space"
    return {"L": "letter", "N": "numeral"}.get(unicodedata.category(sign)[0], "other")


@lru_cache(4096)
def _merged(word: str) -> tuple[str, ...]:
    """A word's pieces: its byte signs, the pair of the lowest rank joined again and again."""
    if word in _MARKS:
        return (word,)
    signs, ranks = _byte_signs(), _ranks()
    parts = [signs[byte] for byte in word.encode()]
    parts[-1] += _END
    while len(parts) > 1:
        pairs = list(pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        joined: list[str] = []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return tuple(parts)


@cache
def _byte_signs() -> list[str]:
    """A visible sign for each byte: itself where Latin-1 prints it, else the next one from U+0100 on."""
    printed = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printed]
    return [chr(byte) if byte in printed else chr(256 + others.index(byte)) for byte in range(256)]


@cache
def _ranks() -> dict[tuple[str, str], int]:
    lines = lzma.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    pairs = (tuple(line.split(" ")) for line in lines)
    return {(first, second): rank for rank, (first, second) in enumerate(pairs)}


@cache
def _vocabulary() -> dict[str, int]:
    signs = _byte_signs()
    ordered = sorted(signs, key=ord)  # printed bytes first, as the vocabulary lists them
    names = [*ordered, *(sign + _END for sign in ordered), *("".join(pair) for pair in _ranks()), *_MARKS]
    return {name: at for at, name in enumerate(names)}
