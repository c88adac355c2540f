"""Records become rows of tokens and learn masks here, by one path for training and sampling.

A row is the tokens of the prompt exactly as the engine would get them, then the tokens of the
reply, then the end token. The prompt's tokens come first and are never re-encoded with what
follows, so a reply that was sampled and the same reply read from a file are the same row.

Dialogues go through the chat template. What a turn looks like (what stands between the generation
prompt and the reply, which token ends the turn, whether the template trims) is found once by
prefix differencing: the template is rendered with and without a reply, and the difference is read.
So templates need no `{% generation %}` marks, and a generation prompt does no harm.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from heed.data.batch import Row
from heed.data.encoding import Encoding
from heed.data.template import PLAIN_TEMPLATE, Turn, read_turn, render_messages
from heed.errors import DataError
from heed.records import Completion, Demonstration, Message, Prompt


class Overlong(DataError):  # noqa: N818 (a state of a row, caught and counted)
    """A row is longer than allowed."""


class Renderer:
    """Turns records into rows with one tokenizer.

    Args:
        tokenizer: a Hugging Face tokenizer. Where it has no chat template it is given one, so that
            a model that is saved with it says how it was trained.
        chat_template: Jinja text to use in place of the tokenizer's; also set on the tokenizer.

    Raises:
        DataError: there is no end token, or the chat template cannot be rendered.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, chat_template: str | None = None
    ) -> None:
        self.tokenizer: Any = tokenizer
        self.notes: list[str] = []
        self._text = Encoding(tokenizer)
        if chat_template is None and not self.tokenizer.chat_template:
            if self.tokenizer.eos_token is None:
                raise DataError(
                    "there is no end token: the tokenizer has neither an eos_token nor a chat "
                    "template. A policy could never learn to stop; set tokenizer.eos_token and "
                    "save the tokenizer, or give a chat template that ends turns"
                )
            chat_template = ("{{ bos_token }}" if self._text.start else "") + PLAIN_TEMPLATE
            self._note(
                "the tokenizer has no chat template; dialogues use the built-in plain one "
                "(Human: and Assistant: turns), which is saved with the model"
            )
        if chat_template is not None:
            self.tokenizer.chat_template = chat_template
        self.turn: Turn = read_turn(self.tokenizer)
        self.notes += self.turn.notes
        self.pad_id: int = self._find_pad()
        if not self._text.lossless:
            self._note("the tokenizer does not give texts back letter by letter")

    @property
    def chat_template(self) -> str:
        """The Jinja text in use."""
        return str(self.tokenizer.get_chat_template())

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Ids that end a completion: the template's end of turn first, then the end of text."""
        ids = (self.turn.end_id, self.tokenizer.eos_token_id)
        return tuple(dict.fromkeys(i for i in ids if i is not None))

    def end_id(self, prompt: Prompt) -> int:
        """The token that ends a reply to this prompt."""
        eos = self.tokenizer.eos_token_id
        return self.turn.end_id if not _is_raw(prompt) or eos is None else int(eos)

    def prompt_tokens(self, prompt: Prompt) -> list[int]:
        """Encode a prompt as the engine gets it, generation prompt and start token included.

        A prompt whose last message is the assistant's is a reply begun, to be continued.

        Raises:
            DataError: the template refuses the messages, or nothing is left to condition on.
        """
        if _is_raw(prompt):
            tokens = self._text.encode_start(_raw_text(prompt.messages), add_start=True)
        else:
            # A chat template writes the start token itself where the model wants one.
            text = render_messages(self.tokenizer, prompt.messages, open_reply=True)
            tokens = self._text.encode_start(text, add_start=False)
        if not tokens:
            start = self.tokenizer.bos_token_id
            start = self.tokenizer.eos_token_id if start is None else start
            if start is None:
                raise DataError(
                    f"prompt {prompt.id!r} has no tokens and the tokenizer no start token; "
                    "give the prompt some text"
                )
            tokens = [int(start)]
        return tokens

    def demonstration_row(
        self, demo: Demonstration, max_length: int | None = None, on_overlong: str = "error"
    ) -> Row:
        """Make the row of a demonstration: every assistant turn of the reply is learned.

        Args:
            demo: prompt and reply.
            max_length: most tokens of the row; None sets no bound.
            on_overlong: `truncate` cuts the oldest tokens of the prompt; else it is an error.

        Raises:
            Overlong: the row is too long, and may not be cut or has too long a reply.
            DataError: the template refuses the messages, or the tokenizer loses text of the reply.
        """
        return self.item_row(demo.prompt, demo.reply, max_length, on_overlong)

    def item_row(
        self,
        prompt: Prompt,
        reply: str | Sequence[Message],
        max_length: int | None = None,
        on_overlong: str = "error",
    ) -> Row:
        """Make the row of a whole item: prompt, reply, end token; the reply and its end learned.

        Arguments and errors as `demonstration_row`; `reply` is a text or messages.
        """
        raw = _is_raw(prompt)
        if isinstance(reply, str):
            reply = (Message(role="text" if raw else "assistant", text=reply),)
        tokens = self.prompt_tokens(prompt)
        learn = [False] * len(tokens)
        if raw or prompt.messages[-1].role == "assistant":
            said = self._said(_raw_text(reply)) + [self.end_id(prompt)]
            tokens, learn = tokens + said, learn + [True] * len(said)
        else:
            self._add_turns(prompt, tuple(reply), tokens, learn)
        row = Row(prompt.id, tokens, learn)
        return row if max_length is None else self.fitted(row, max_length, on_overlong)

    def steps_row(
        self,
        prompt: Prompt,
        steps: Sequence[str],
        separator: str,
        max_length: int | None = None,
        on_overlong: str = "error",
    ) -> Row:
        """Make the row of a completion in steps: prompt, then each step with the separator.

        Only the last token of each step's separator is marked as learned: there it is judged.

        Raises:
            Overlong: as `demonstration_row`.
            DataError: there are no steps, or the separator has no tokens.
        """
        tokens, between = self.prompt_tokens(prompt), self._said(separator)
        if not steps or not between:
            raise DataError(
                f"found {len(steps)} steps and a separator of {len(between)} tokens; "
                "give at least one of each"
            )
        num_prompt, ends = len(tokens), []
        for step in steps:
            tokens = tokens + self._said(step) + between
            ends.append(len(tokens) - 1)
        said = [False] * num_prompt + [True] * (len(tokens) - num_prompt)
        row = Row(prompt.id, tokens, said)
        if max_length is not None:
            row = self.fitted(row, max_length, on_overlong)
        learn = [False] * len(row.tokens)
        for end in ends:
            learn[end - (len(tokens) - len(row.tokens))] = True
        return Row(prompt.id, row.tokens, learn)

    def completion_row(self, prompt: Prompt, completion: Completion) -> Row:
        """Make the row of a sampled completion, token in, token out: nothing is re-encoded.

        Raises:
            DataError: the completion answers another prompt, or has no tokens.
        """
        if completion.prompt_id != prompt.id:
            raise DataError(
                f"completion {completion.id!r} answers prompt {completion.prompt_id!r} and was "
                f"given with prompt {prompt.id!r}; pair each completion with its own prompt"
            )
        if not completion.tokens:
            raise DataError(
                f"completion {completion.id!r} has no tokens ({completion.error or 'no error'}); "
                "leave failed completions out of the batch"
            )
        before = list(completion.prompt_tokens) or self.prompt_tokens(prompt)
        learnable = completion.learnable or [True] * len(completion.tokens)
        kept = None
        if completion.kept is not None:
            kept = [(), *[()] * (len(before) - 1), *completion.kept]
        return Row(
            completion.id,
            [*before, *completion.tokens],
            [*[False] * len(before), *learnable],
            kept,
        )

    def text_row(self, id: str, text: str) -> Row:
        """Make the row of a plain text: every token but the first is learned, and the end token."""
        eos = self.tokenizer.eos_token_id
        tokens = self._text.encode_start(text, add_start=True) + [
            self.turn.end_id if eos is None else int(eos)
        ]
        return Row(id, tokens, [False, *[True] * (len(tokens) - 1)])

    def text_rows(self, id: str, text: str, max_length: int) -> list[Row]:
        """Split a text into rows of at most `max_length` tokens, of which none is lost.

        Each row begins with the last token of the row before, so every token of the text but the
        first is learned exactly once.
        """
        whole = self.text_row(id, text)
        if len(whole.tokens) <= max_length:
            return [whole]
        starts = range(0, len(whole.tokens) - 1, max_length - 1)
        pieces = [whole.tokens[start : start + max_length] for start in starts]
        return [
            Row(f"{id}/{n}", piece, [False, *[True] * (len(piece) - 1)])
            for n, piece in enumerate(pieces)
        ]

    def fitted(self, row: Row, max_length: int, on_overlong: str = "truncate") -> Row:
        """Return the row, cut to `max_length` tokens by leaving out the oldest of the prompt.

        A start token stays, the reply stays whole.

        Raises:
            Overlong: the row is too long, and may not be cut or has too long a reply.
        """
        length = len(row.tokens)
        if length <= max_length:
            return row
        if on_overlong != "truncate":
            raise Overlong(
                f"row {row.id!r} has {length:,} tokens, allowed are {max_length:,}; raise "
                "data.max_length, or let rows be cut or dropped with data.on_overlong"
            )
        return self.without_oldest(row, length - max_length)

    def fitted_pair(
        self, chosen: Row, rejected: Row, max_length: int, on_overlong: str = "truncate"
    ) -> tuple[Row, Row]:
        """Return two rows of one prompt, cut alike; see `fitted_together`."""
        rows = self.fitted_together((chosen, rejected), max_length, on_overlong)
        return rows[0], rows[1]

    def fitted_together(
        self, rows: Sequence[Row], max_length: int, on_overlong: str = "truncate"
    ) -> tuple[Row, ...]:
        """Return rows of one prompt, cut alike, so that the replies stay comparable.

        Raises:
            Overlong: as `fitted`, for any row.
        """
        longest = max(rows, key=lambda row: len(row.tokens))
        excess = len(longest.tokens) - max_length
        if excess <= 0:
            return tuple(rows)
        self.fitted(longest, max_length, on_overlong)
        return tuple(self.without_oldest(row, excess) for row in rows)

    def without_oldest(self, row: Row, num_tokens: int) -> Row:
        """Leave the oldest `num_tokens` of the prompt out, but a start token.

        Raises:
            Overlong: the prompt has not that many to lose.
        """
        start = len(self._text.start)
        if list(row.tokens[:start]) != self._text.start:
            start = 1 if row.tokens[0] == self.tokenizer.bos_token_id else 0
        first_learned = list(row.learn).index(True) if any(row.learn) else len(row.tokens)
        # One token before the reply must stay, or nothing would predict its first.
        if start + num_tokens > first_learned - (0 if start else 1):
            raise Overlong(
                f"row {row.id!r} has a reply of {len(row.tokens) - first_learned:,} tokens, which "
                f"does not fit {len(row.tokens) - num_tokens:,}; raise data.max_length"
            )
        rest = slice(start + num_tokens, None)
        return Row(
            row.id,
            [*row.tokens[:start], *row.tokens[rest]],
            [*row.learn[:start], *row.learn[rest]],
            None if row.kept is None else [*row.kept[:start], *row.kept[rest]],
        )

    def decode(self, tokens: Sequence[int]) -> str:
        """Decode a completion's tokens to text, without the end token at the end.

        Other special tokens stay visible: a scorer sees what the policy really wrote.
        """
        tokens = list(tokens)
        if tokens and tokens[-1] in self.end_ids:
            tokens = tokens[:-1]
        return self._text.decode(tokens)

    def _add_turns(
        self, prompt: Prompt, reply: Sequence[Message], tokens: list[int], learn: list[bool]
    ) -> None:
        """Append the turns of a reply, and between two of them what the template writes there."""
        context = list(prompt.messages)
        shown = ""
        for message in reply:
            if message.role == "assistant":
                text = message.text.strip() if self.turn.trims else message.text
                opened = render_messages(self.tokenizer, context, open_reply=True)
                if shown:
                    self._add_between(shown, opened, prompt.id, tokens, learn)
                lead = "" if text[:1].isspace() else self.turn.lead
                tokens += self._said(lead + text)
                learn += [True] * (len(tokens) - len(learn))
                shown = opened + lead + text
            context.append(message)
        tokens.append(self.turn.end_id)
        learn.append(True)

    def _said(self, text: str) -> list[int]:
        """Encode what the policy should say; an end token inside would end it too early."""
        tokens = self._text.encode_next(text)
        inside = set(tokens) & set(self.end_ids)
        if inside:
            raise DataError(
                f"a reply has the end token {self._text.decode(sorted(inside))!r} in its text: "
                f"{text[:60]!r}; take it out, the renderer adds one at the end"
            )
        return tokens

    def _add_between(
        self, shown: str, opened: str, id: str, tokens: list[int], learn: list[bool]
    ) -> None:
        """Append what stands between two replies; an end token that begins it is learned."""
        if not opened.startswith(shown):
            raise DataError(
                f"the chat template rewrites earlier turns of prompt {id!r} once a later turn "
                "follows, so not every assistant turn can be learned from one row; keep only the "
                "last assistant turn as the reply, or use another chat template"
            )
        between = opened[len(shown) :]
        if self.turn.end_text and between.startswith(self.turn.end_text):
            tokens.append(self.turn.end_id)
            learn.append(True)
            between = between[len(self.turn.end_text) :]
        tokens += self._text.encode(between)
        learn += [False] * (len(tokens) - len(learn))

    def _find_pad(self) -> int:
        pad = self.tokenizer.pad_token_id
        if pad is None:
            pad = self.end_ids[0]
            self._note(f"the tokenizer has no pad token; id {pad} fills rows, no mask reads it")
        elif pad in self.end_ids:
            self._note("the pad token is an end token; masks tell them apart, both work")
        return int(pad)

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)


def _is_raw(prompt: Prompt) -> bool:
    raw = [message.role == "text" for message in prompt.messages]
    if any(raw) and not all(raw):
        raise DataError(
            f"prompt {prompt.id!r} mixes raw text with turns of a dialogue; use one of the two"
        )
    return all(raw)


def _raw_text(messages: Sequence[Message]) -> str:
    return "".join(message.text for message in messages)
