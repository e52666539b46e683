"""Where the networks of a method take their first weights from."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from polygrain.methods.base import Method
from polygrain.parts.encoder import Encoder
from polygrain.parts.sizes import ENCODERS
from polygrain.parts.stems import adapt_stem
from polygrain.parts.teacher import StudentTeacher
from polygrain.weights.account import ImportReport, Row
from polygrain.weights.backbone import KEY, load_exactly, open_backbone
from polygrain.weights.importing import fill_encoder, fill_method, full_table
from polygrain.weights.reading import read_checkpoint
from polygrain.weights.tables import Rule, Table
from polygrain.weights.tensors import opened


def start_from(spec: str | Path, method: Method, *, allow_missing: bool = False) -> ImportReport:
    """Gives student and teacher the weights of `timm:NAME`, a run folder, a file of ours or an official file.

    A full official checkpoint also fills the heads, queues and memories of the method it was made by; in any other
    method it gives its backbone alone.

    Raises:
        ValueError: when there is nothing of that name, or it does not fit the method's encoder.
    """
    if str(spec).startswith("timm:"):
        report = _copy(method.student, _pretrained(str(spec).removeprefix("timm:"), method.student), str(spec))
    elif Path(spec).is_dir() or _ours(Path(spec)):
        report = _copy(method.student, open_backbone(spec).encoder, str(spec))
    else:
        tensors = read_checkpoint(spec)
        table = full_table(tensors, method) or ()
        if _continues(method, table):
            return fill_method(tensors, str(spec), method, allow_missing)
        report = fill_encoder(tensors, str(spec), method.student, allow_missing=allow_missing)
    if isinstance(method.encoder, StudentTeacher):
        method.encoder.restart()
    return report


def _continues(method: Method, table: Table) -> bool:
    """Whether the method's objectives are built like those of the table, as far as it has them.

    Several methods call an objective "instance"; what it is made of tells them apart.
    """
    targets = [re.split(r"[\\\[]", rule.target)[0].rstrip(".").split(".") for rule in table if isinstance(rule, Rule)]
    own = [names for names in targets if names[0] == "objectives" and names[1:2] and names[1] in method.objectives]

    def there(names: Sequence[str]) -> bool:
        part: object = method
        for name in names:
            if not hasattr(part, name):
                return False
            part = getattr(part, name)
        return True

    return bool(own) and all(map(there, own))


def _pretrained(name: str, like: Encoder) -> Encoder:
    """A timm model with its weights brought to the image and patch size of another encoder."""
    ready_made = ENCODERS.get(like.settings.name)
    arguments = {**(ready_made.arguments if ready_made else {}), **like.settings.arguments}
    return Encoder(replace(like.settings, name=name, pretrained=True, arguments=arguments))


def _ours(path: Path) -> bool:
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with opened(path) as file:
        return KEY in (file.metadata() or {})


def _copy(encoder: Encoder, source: Encoder, name: str) -> ImportReport:
    tensors = adapt_stem(source.model.state_dict(), encoder.model)
    load_exactly(encoder.model, tensors, source=name)
    return ImportReport(
        source=name, rows=tuple(Row("matched", key, key, str(tuple(value.shape))) for key, value in tensors.items())
    )
