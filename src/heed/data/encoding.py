"""Text to token ids and back, with the differences between tokenizers taken out of sight."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from typing import Any

from heed.errors import DataError

_PROBE = "Yes, it's so (3.5 km)!"


class Encoding:
    """One tokenizer, used in one way: special tokens stand where the text has them.

    Args:
        tokenizer: a Hugging Face tokenizer.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.start = self._start_tokens()
        """The ids that the tokenizer puts before every text by itself."""
        self.lossless = self.decode(self.encode(_PROBE)) == _PROBE
        """Whether decoding gives a text back letter by letter."""
        self._joins = self.decode([*self.encode("a"), *self.encode("b")]) == "ab"

    def encode(self, text: str) -> list[int]:
        """Encode text as it stands; nothing is added."""
        encoded = self.tokenizer(text, add_special_tokens=False, verbose=False)
        tokens: list[int] = encoded["input_ids"]
        return tokens

    def encode_start(self, text: str, *, add_start: bool) -> list[int]:
        """Encode text that begins a row, with no more than one start token.

        Args:
            text: of which a chat template may have written the start token.
            add_start: put the tokenizer's own start there where the text has none.
        """
        tokens = self.encode(text)
        bos = self.tokenizer.bos_token_id
        while len(tokens) > 1 and bos is not None and tokens[0] == tokens[1] == bos:
            tokens = tokens[1:]
        begun = tokens[: len(self.start)] == self.start
        return tokens if begun or not add_start else self.start + tokens

    def encode_next(self, text: str) -> list[int]:
        """Encode text that goes on behind other tokens, and verify it by decoding.

        Raises:
            DataError: the tokens do not decode to the text.
        """
        tokens = self.encode(text)
        if not self._joins:
            # Some tokenizers put a space before every text they encode; behind a line break the
            # space goes there, and is cut off with it.
            anchor, joint = self.encode("\n"), self.encode("\n" + text)
            if anchor and joint[: len(anchor)] == anchor:
                tokens = joint[len(anchor) :]
        decoded = self.decode(tokens)
        if decoded != text and (self.lossless or _letters(decoded) != _letters(text)):
            raise DataError(
                f"the tokenizer does not give the reply back: {text[:60]!r} became "
                f"{decoded[:60]!r}; use a tokenizer that knows these characters"
            )
        return tokens

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode tokens to text, every special token written out."""
        return str(
            self.tokenizer.decode(
                list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False
            )
        )

    def _start_tokens(self) -> list[int]:
        plain = self.encode("a")
        whole: list[int] = self.tokenizer("a")["input_ids"]
        for at in range(len(whole) - len(plain) + 1):
            if whole[at : at + len(plain)] == plain:
                return whole[:at]
        return []


def _letters(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())
