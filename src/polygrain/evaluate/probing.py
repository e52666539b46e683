"""Heads of a sweep under test: what augmented and cached training have in common."""

from collections.abc import Mapping, Sequence

from torch import Tensor

from polygrain.evaluate.choosing import Choosing, ranked_rows
from polygrain.evaluate.settings import Readout
from polygrain.evaluate.settings.heads import HeadRecipe
from polygrain.evaluate.sweep import Heads


def head_names(recipe: HeadRecipe, readouts: Sequence[Readout]) -> list[str]:
    """What each head is called: its learning rate, and the readout where there are several."""
    several = len(readouts) > 1
    return [f"{readout} {rate}" if several else str(rate) for readout in readouts for rate in recipe.learning_rates]


def look(
    choosing: Choosing,
    sweeps: Mapping[Readout, Heads],
    held: Mapping[Readout, Tensor],
    held_labels: Tensor,
    test: Mapping[Readout, Tensor],
) -> None:
    """Shows all heads the held-out and the test images."""
    places = [(readout, head) for readout, heads in sweeps.items() for head in range(len(heads.weight))]

    def rank(place: int) -> Tensor:
        readout, head = places[place]
        return ranked_rows(sweeps[readout].one(head).logits(test[readout])[0])

    choosing.look(
        [share for readout, heads in sweeps.items() for share in heads.top1(held[readout], held_labels)],
        [share for readout, heads in sweeps.items() for share in heads.top1(test[readout], choosing.labels)],
        rank,
    )
