"""CLIP's byte pairs: known ids of the released vocabulary, and the rules of splitting."""

from __future__ import annotations

import pytest

from anyform.encoders.clip_tokens import LENGTH, _words, clean, pieces, tokenise


def test_known_ids() -> None:
    ids = tokenise(["A dog.", "a photo of a cat"])
    assert ids.shape == (2, LENGTH)
    assert ids[0, :6].tolist() == [49406, 320, 1929, 269, 49407, 0]
    assert ids[1, :8].tolist() == [49406, 320, 1125, 539, 320, 2368, 49407, 0]


def test_the_end_mark_stays_where_a_sentence_is_cut() -> None:
    row = tokenise(["chair " * 200])[0]
    assert row[-1] == 49407 and row[0] == 49406 and len(set(row[1:-1])) == 1
    assert row.argmax() == LENGTH - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("i'm here", ["i", "'m", "here"]),
        ("o'clock!?", ["o", "'", "clock", "!?"]),
        ("''s", ["''", "s"]),
        ("abc123", ["abc", "1", "2", "3"]),
        ("½ tea-pot", ["½", "tea", "-", "pot"]),
        ("日本", ["日本"]),
        ("<|endoftext|>x", ["<|endoftext|>", "x"]),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert list(_words(text)) == words


def test_cleaning() -> None:
    assert clean("  A\tRED &amp;amp; “Blue”\n mug ") == 'a red & "blue" mug'
    assert clean("e\u0301") == "\u00e9" and clean("ﬁsh") == "fish" and clean("Ａ１") == "a1"


def test_every_byte_has_a_piece() -> None:
    for text in ("🎉", "\x01", "ÿ", "\u2028x"):
        assert all(0 <= piece < 49406 for piece in pieces(text))
    assert pieces("") == []
