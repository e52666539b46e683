"""Why an image cannot be used, in a few words that can be counted."""

from polygrain.data.decoding import Undecodable
from polygrain.data.integrity import cut_short

EMPTY, TRUNCATED, NOT_AN_IMAGE, TOO_LARGE, UNREADABLE, CRASH, STALL, OTHER = TROUBLES = (
    "empty",
    "truncated",
    "not an image",
    "too large",
    "unreadable",
    "crashed the decoder",
    "stalled",
    "undecodable",
)
MARKS = {  # in the messages of `decode` and of Pillow
    EMPTY: ("file is empty",),
    TRUNCATED: ("truncat", "cut short", "not processed", "unexpected end of file"),
    TOO_LARGE: ("bomb", "above the limit", "above the cap", "too large"),
}


class Unreadable(Undecodable):
    """An image whose bytes cannot be had; the message names the operating system's reason."""


def trouble_of(error: Undecodable, data: bytes | None = None) -> str:
    """Which of TROUBLES an error is; with the file's bytes, a missing end is told from other damage."""
    if isinstance(error, Unreadable):
        return UNREADABLE
    told = str(error)
    if told.startswith("not an image"):
        return TRUNCATED if data and cut_short(data) else NOT_AN_IMAGE
    found = next((trouble for trouble, marks in MARKS.items() if any(mark in told for mark in marks)), OTHER)
    return TRUNCATED if found == OTHER and data and cut_short(data) else found
