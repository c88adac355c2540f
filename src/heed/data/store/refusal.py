"""What the store says no to: one exception, with the kind of refusal for whoever must react."""

from __future__ import annotations

from typing import Literal

from heed.errors import StoreError

RefusalKind = Literal["absent", "denied", "conflict", "gone", "invalid"]


class Refusal(StoreError):  # noqa: N818  it is no error of the store's
    """One request that the store does not carry out; nothing was changed.

    Args:
        kind: `absent` there is no such thing; `denied` it is somebody else's, or the role does not
            allow it; `conflict` it contradicts what is stored (such as another answer under the
            same submission id, or an older draft); `gone` the lease or session is over; `invalid`
            the content does not fit the kind of work.
        message: what was found, what was expected, what to do.
    """

    def __init__(self, kind: RefusalKind, message: str) -> None:
        super().__init__(message)
        self.kind: RefusalKind = kind
