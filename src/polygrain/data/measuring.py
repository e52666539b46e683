"""Mean and standard deviation of a set's channels, measured."""

import numpy as np

from polygrain.data.images import Images
from polygrain.data.photometric import Normalisation

SAMPLE = 1000  # images


def measure_normalisation(images: Images, *, sample: int = SAMPLE, seed: int = 0) -> Normalisation:
    """Of pixels in 0..1, over up to `sample` images drawn without replacement; every image counts the same.

    The same images, whatever the order they are read in and wherever: sums are of whole numbers, hence exact.
    Images that cannot be decoded are left out.

    Raises:
        ValueError: when a channel has one value everywhere, so that there is nothing to divide by.
    """
    chosen = np.random.default_rng(seed).permutation(len(images))[:sample]
    means, squares = [], []  # of each image, (C,)
    for i in np.sort(chosen).tolist():
        pixels, source = images.read(i)
        if source == i:
            values = pixels.flatten(1).numpy().astype(np.int64)  # (C, H * W)
            means.append(values.mean(1, dtype=np.float64))
            squares.append((values**2).mean(1, dtype=np.float64))
    mean = np.mean(means, axis=0)
    variance = np.mean(squares, axis=0) - mean**2
    if (flat := np.flatnonzero(variance < 1e-9)).size:
        raise ValueError(
            f"channel {flat[0]} is {mean[flat[0]]:g} of 255 in all of {len(means)} images; leave it out, or give the "
            "mean and std to normalise with"
        )
    return Normalisation(tuple((mean / 255).tolist()), tuple((np.sqrt(variance) / 255).tolist()))
