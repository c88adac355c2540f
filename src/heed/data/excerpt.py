"""Cut prompts out of running text, so that each begins and ends where a sentence does.

Source: Ziegler et al. 2019, code (`start_text`, `end_text`): a query begins after the first period
of its passage and ends with the last one that leaves it short enough.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable

from heed.records import Prompt, prompt_id


def excerpt(
    prompt: Prompt, start: str | None, end: str | None, length: Callable[[Prompt], int], most: int
) -> Prompt | None:
    """Cut a prompt's last message: after the first `start`, and up to the last `end` that fits.

    Args:
        prompt: of any messages; those before the last stay.
        start: the text begins after the first such text, without the space that follows it;
            None: where it began.
        end: the text ends with such a text; None: where it ended, however long that is.
        length: of a prompt, in tokens.
        most: allowed tokens, where `end` is given.

    Returns:
        the prompt with the id of its new content, or None where no such text is left.
    """
    text = prompt.text
    if start is not None:
        _, found, text = text.partition(start)
        text = text.lstrip()
        if not found or not text:
            return None
    if end is None:
        return _with_text(prompt, text)
    ends = [i + len(end) for i in range(len(text)) if text.startswith(end, i)]
    # A longer piece has as many tokens or more, but for merges across its end; what is found is
    # measured again.
    count = bisect_right(ends, most, key=lambda last: length(_with_text(prompt, text[:last])))
    cut = _with_text(prompt, text[: ends[count - 1]]) if count else None
    return cut if cut is not None and length(cut) <= most else None


def _with_text(prompt: Prompt, text: str) -> Prompt:
    last = prompt.messages[-1].model_copy(update={"text": text})
    messages = (*prompt.messages[:-1], last)
    return prompt.model_copy(update={"id": prompt_id(messages), "messages": messages})
