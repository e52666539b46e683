import pytest
import torch
from sklearn.decomposition import PCA

from polygrain.report.patch_colours import fit_basis, patch_colours


def cloud(n=6, patches=16, dim=10):
    random = torch.Generator().manual_seed(0)
    return torch.randn(n, patches, dim, generator=random).exp() * torch.linspace(3, 0.1, dim)


def test_directions_are_the_principal_components_of_sklearn():
    patches = cloud()
    ours = fit_basis(patches).directions.float()
    theirs = torch.from_numpy(PCA(3).fit(patches.flatten(0, 1).numpy()).components_)
    assert (ours * theirs).sum(dim=1).abs().tolist() == pytest.approx([1, 1, 1], abs=1e-4)


def test_rotating_the_features_leaves_the_colours_as_they_are():
    patches = cloud()
    rotation = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    turned = patches.double() @ rotation
    first, second = (patch_colours(fit_basis(p), p, (4, 4)) for p in (patches, turned))
    assert (first.int() - second.int()).abs().max() <= 1


def test_colours_fill_the_range_and_stand_where_the_patches_are():
    patches = cloud(patches=15)
    colours = patch_colours(fit_basis(patches), patches, (3, 5))
    assert colours.shape == (6, 3, 3, 5)
    assert colours.dtype == torch.uint8
    assert colours.amin(dim=(0, 2, 3)).tolist() == [0, 0, 0]
    assert colours.amax(dim=(0, 2, 3)).tolist() == [255, 255, 255]
    red = fit_basis(patches).project(patches)[..., 0]  # (n, N)
    brightest = int(red[2].argmax())
    assert int(colours[2, 0].flatten()[brightest]) == colours[2, 0].max()


def test_one_basis_for_all_images_gives_equal_patches_equal_colours():
    patches = cloud()
    patches[3, 5] = patches[0, 2]
    colours = patch_colours(fit_basis(patches), patches, (4, 4)).flatten(2)
    assert colours[3, :, 5].tolist() == colours[0, :, 2].tolist()


def test_patches_that_are_all_alike_are_grey():
    patches = torch.ones(2, 4, 8)
    assert patch_colours(fit_basis(patches), patches, (2, 2)).unique().tolist() == [128]
