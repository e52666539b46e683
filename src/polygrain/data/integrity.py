"""What the bytes of an image file say of their own completeness, without decoding them."""

import zlib

PNG = b"\x89PNG\r\n\x1a\n"


def cut_short(data: bytes) -> bool:
    """Whether the end that the format calls for is missing: JPEG, PNG, GIF, WebP, BMP."""
    if data.startswith(b"\xff\xd8\xff"):
        return b"\xff\xd9" not in data[-64:]
    if data.startswith(PNG):
        return b"IEND" not in data[-64:]
    if data.startswith((b"GIF87a", b"GIF89a")):
        return not data.rstrip(b"\0").endswith(b"\x3b")
    if data.startswith(b"RIFF"):
        return len(data) < 8 + int.from_bytes(data[4:8], "little")
    if data.startswith(b"BM"):
        return len(data) < int.from_bytes(data[2:6], "little")
    return False


def png_damage(data: bytes) -> str | None:
    """What is wrong with the chunks of a PNG, by their lengths and checksums; None where all is well.

    Pillow does not compare the checksums of pixel chunks.
    """
    position = len(PNG)
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 8 + length
        kind = data[position + 4 : position + 8]
        if end + 4 > len(data):
            break
        if zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4], "big"):
            return f"the checksum of a PNG chunk {kind!r} does not fit its content"
        if kind == b"IEND":
            return None
        position = end + 4
    return "the PNG is cut short"
