"""Kinds of findings, what each means, and what to do about it."""

from typing import NamedTuple

from polygrain.data.duplicates import NEAR_BITS, OTHER_BITS
from polygrain.data.looking import CONSTANT_SPREAD, LONGEST_ASPECT, TINY_SIDE, Oddity
from polygrain.data.opening import MAX_PIXELS
from polygrain.data.troubles import CRASH, EMPTY, NOT_AN_IMAGE, OTHER, STALL, TOO_LARGE, TROUBLES, TRUNCATED, UNREADABLE

PATIENCE = 60.0  # seconds for one image, with workers
CONSTANT, DUPLICATE, NEAR = "constant", "duplicate", "near duplicate"
HURTFUL = (*TROUBLES, CONSTANT, DUPLICATE)  # what goes to the quarantine


class Kind(NamedTuple):
    """A kind of finding."""

    meaning: str
    advice: str = ""


KINDS = {
    EMPTY: Kind("0 bytes", "copy them again"),
    TRUNCATED: Kind("the end of the file is missing", "copy them again"),
    NOT_AN_IMAGE: Kind("something else under the name of an image", "often pages of a failed download"),
    TOO_LARGE: Kind(f"above {MAX_PIXELS:,} pixels, read from the header and never decoded", "store them smaller"),
    UNREADABLE: Kind("the operating system refuses the file", "look at permissions and the disk"),
    CRASH: Kind("the process that decoded it died", "leave them out, and report them to Pillow"),
    STALL: Kind(f"not decoded within {PATIENCE:g} s", "look at the disk or network"),
    OTHER: Kind("damaged, or of a kind that is not read"),
    CONSTANT: Kind(
        f"no channel varies by more than {CONSTANT_SPREAD} of 255", "nothing can be learned from one colour"
    ),
    DUPLICATE: Kind("the same pixels as an image before", "they count twice, and may lie in both train and val"),
    NEAR: Kind(
        f"difference hashes within {NEAR_BITS} and {OTHER_BITS} of 64 bits of an image before",
        "look at some: frames of a film and smooth pictures are alike",
    ),
    "tiny": Kind(f"shorter side below {TINY_SIDE} px", "crops will be enlarged; see the size of crops"),
    "extreme aspect": Kind(f"one side over {LONGEST_ASPECT} times the other", "square crops see little of them"),
    "16 bits": Kind("scaled to 8 bits by their depth"),
    "CMYK": Kind("converted without colour profiles"),
    "several pictures": Kind("animations and pages, of which the first counts"),
    "rotated by EXIF": Kind("turned upright"),
    "alpha": Kind("transparent parts are laid over white"),
    "palette": Kind("colours looked up"),
    "gray": Kind("one channel, repeated for RGB", "where all are gray, train with one channel"),
    "odd channels": Kind("files of bands, such as arrays and multi-band TIFFs"),
}
ODDITIES = {
    Oddity.CONSTANT: CONSTANT,
    Oddity.TINY: "tiny",
    Oddity.EXTREME_ASPECT: "extreme aspect",
    Oddity.SIXTEEN_BIT: "16 bits",
    Oddity.CMYK: "CMYK",
    Oddity.SEVERAL_PICTURES: "several pictures",
    Oddity.ROTATED: "rotated by EXIF",
    Oddity.ALPHA: "alpha",
    Oddity.PALETTE: "palette",
    Oddity.GRAY: "gray",
    Oddity.ODD_CHANNELS: "odd channels",
}
