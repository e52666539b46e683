"""File names as one line of text, and back: names may hold line breaks, terminal escapes, or bytes that are no text."""

import re

LONGEST_REASON = 200  # characters


def escaped(name: str) -> str:
    r"""A name as printable text on one line, without loss.

    Printable characters stand for themselves, a backslash is doubled, every other byte is written `\xNN`; so is "#" at
    the start, which begins a comment in a list of names.
    """
    text = "".join(
        character if character.isprintable() and character != "\\" else _bytes(character) for character in name
    )
    return "\\x23" + text[1:] if text.startswith("#") else text


def unescaped(text: str) -> str:
    """The name that `escaped` wrote.

    Raises:
        ValueError: when a backslash is followed by something else.
    """
    if not re.fullmatch(r"(?:[^\\]|\\\\|\\x[0-9a-f]{2})*", text):
        raise ValueError(rf"the name {text!r} holds a backslash that is neither \\ nor \xNN")
    raw = re.sub(rb"\\(\\|x[0-9a-f]{2})", _byte, text.encode("utf-8", "surrogateescape"))
    return raw.decode("utf-8", "surrogateescape")


def one_line(reason: str) -> str:
    """What a decoder said, which may quote the file, as printable text of one line and a bounded length."""
    text = "".join(character if character.isprintable() else _bytes(character) for character in reason)
    return text if len(text) <= LONGEST_REASON else text[: LONGEST_REASON - 3] + "..."


def _bytes(character: str) -> str:
    if character == "\\":
        return "\\\\"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", "surrogateescape"))


def _byte(match: re.Match[bytes]) -> bytes:
    return b"\\" if match[1] == b"\\" else bytes([int(match[1][1:], 16)])
