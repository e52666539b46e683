"""Settings that all protocols share and one of them does not have."""

from typing import Any


def refuse(settings: Any, protocol: str, **defaults: Any) -> None:
    """Raises ValueError when a setting that this protocol fixes was changed from its default."""
    for name, default in defaults.items():
        if getattr(settings, name) != default:
            raise ValueError(f"{name} is {getattr(settings, name)}; {protocol} prepares images in its own way, omit it")
