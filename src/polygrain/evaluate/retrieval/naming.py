"""Images by the names that a file of somebody else's gives them."""

from collections.abc import Callable
from pathlib import PurePath

from polygrain.data.images import Images

LISTED = 3  # images of one name


def whole(name: str) -> str:
    return name


def without_suffix(name: str) -> str:
    return str(PurePath(name).with_suffix(""))


def last_part(name: str) -> str:
    return PurePath(name).name


def stem(name: str) -> str:
    return PurePath(name).stem


def finder(images: Images, *shortened: Callable[[str], str]) -> Callable[[str], int | None]:
    """Where the image of a name is in a source; None where there is no such image.

    Args:
        shortened: forms of the names that are looked through, in this order. The function found raises ValueError for
            what names several images.
    """
    names = [images.name(i) for i in range(len(images))]
    forms: list[dict[str, list[int]]] = []
    for form in shortened:
        places: dict[str, list[int]] = {}
        for i, name in enumerate(names):
            places.setdefault(form(name), []).append(i)
        forms.append(places)

    def find(name: str) -> int | None:
        found = next((places[name] for places in forms if name in places), [])
        if len(found) > 1:
            some = ", ".join([*(names[i] for i in found[:LISTED]), *(["..."] if len(found) > LISTED else [])])
            raise ValueError(f"{name!r} names {len(found)} images ({some}); give the folder too")
        return found[0] if found else None

    return find
