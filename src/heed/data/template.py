"""Chat templates: render messages, and find out how a template writes a turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from heed.errors import DataError
from heed.records import Message

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "{{ '\\n\\nAssistant:\\n' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'user' %}{{ '\\n\\nHuman: ' + message['content'] }}"
    "{% else %}{{ '\\n\\n' + message['role'] | capitalize + ': ' + message['content'] }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '\\n\\nAssistant:\\n' }}{% endif %}"
)
"""For tokenizers without a template: `\\n\\nHuman: ...` and `\\n\\nAssistant:\\n...` with the end
token. The reply stands on its own line, so that it begins at a token's boundary in every byte-level
tokenizer and needs no space of its own."""

_QUESTION = "heedquestion"
_ANSWER = "heedanswer"


@dataclass(frozen=True)
class Turn:
    """How a template writes an assistant turn.

    Args:
        lead: white space that it puts between the generation prompt and the reply.
        end_id: the token that ends the reply.
        end_text: the text of that token where the template writes it, else empty.
        trims: whether it strips the reply.
        notes: what a user should know.
    """

    lead: str
    end_id: int
    end_text: str
    trims: bool
    notes: tuple[str, ...] = field(default=())


def render_messages(tokenizer: Any, messages: Sequence[Message], *, open_reply: bool) -> str:
    """Render messages through the tokenizer's chat template.

    Args:
        tokenizer: with a chat template.
        messages: turns; a system message comes first.
        open_reply: end with the generation prompt, or, where the last message is the assistant's,
            leave that message open.

    Raises:
        DataError: the template refuses the messages; the message has its words.
    """
    turns = [{"role": m.role, "content": m.text} for m in messages]
    begun = open_reply and messages[-1].role == "assistant"
    try:
        return str(
            tokenizer.apply_chat_template(
                turns,
                tokenize=False,
                add_generation_prompt=open_reply and not begun,
                continue_final_message=begun,
            )
        )
    except Exception as error:
        roles = ", ".join(m.role for m in messages)
        raise DataError(
            f"the chat template refuses the turns ({roles}): {type(error).__name__}: {error}. "
            "Change the turns, or give a chat template that takes them"
        ) from error


def read_turn(tokenizer: Any) -> Turn:
    """Find out how the tokenizer's template writes an assistant turn.

    The template is rendered up to the reply and with the reply; the difference between the two is
    what the policy has to write.

    Raises:
        DataError: the template cannot be rendered, or there is no end token.
    """
    question = Message(role="user", text=_QUESTION)
    opened = render_messages(tokenizer, [question], open_reply=True)
    full = _closed(tokenizer, question, _ANSWER)
    at = full.rfind(_ANSWER)
    if at < 0:
        raise DataError(
            "the chat template does not write the assistant's message; give one that does"
        )
    notes = []
    lead, tail = "", full[at + len(_ANSWER) :]
    if not full.startswith(opened):
        notes.append(
            "the generation prompt of the chat template is not the beginning of a reply that it "
            "renders; replies are put behind the generation prompt, as they are sampled"
        )
    elif full[len(opened) : at].isspace():
        lead = full[len(opened) : at]
    elif at > len(opened):
        notes.append(
            f"the chat template writes {full[len(opened) : at]!r} before a reply; it is left out, "
            "as replies are put right behind the generation prompt"
        )
    end_id, end_text, written = _end_of_turn(tokenizer, tail)
    if not written:
        notes.append(
            "the chat template ends the assistant's turn with no token of its own; replies end "
            f"with {tokenizer.eos_token!r}"
        )
    trims = f"  {_ANSWER}  " not in _closed(tokenizer, question, f"  {_ANSWER}  ")
    return Turn(lead, end_id, end_text, trims, tuple(notes))


def _closed(tokenizer: Any, question: Message, answer: str) -> str:
    messages = [question, Message(role="assistant", text=answer)]
    return render_messages(tokenizer, messages, open_reply=False)


def _end_of_turn(tokenizer: Any, tail: str) -> tuple[int, str, bool]:
    """Find the token that ends a reply: its id, its text where it follows at once, if written."""
    known = {str(token): int(id) for id, token in tokenizer.added_tokens_decoder.items()}
    if tokenizer.eos_token is not None:
        known[str(tokenizer.eos_token)] = int(tokenizer.eos_token_id)
    written = [token for token in known if token and tail.lstrip().startswith(token)]
    if written:
        token = max(written, key=len)
        # Where white space stands before the token, the row leaves it out, and so does the text.
        return known[token], token if tail.startswith(token) else "", True
    if tokenizer.eos_token_id is None:
        raise DataError(
            "there is no end token: the tokenizer has no eos_token, and the chat template closes "
            f"the assistant's turn with {tail!r}, which is no single token. A policy could never "
            "learn to stop; set tokenizer.eos_token, or give a template that ends turns with a "
            "special token"
        )
    return int(tokenizer.eos_token_id), "", False
