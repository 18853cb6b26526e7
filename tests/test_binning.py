"""The tiles' lists of the CUDA rasteriser, which are plain torch operations and run anywhere."""
import math

import pytest
import torch

from egstalker_nb.rasterizer.cuda import bin_tiles, camera_centers

WIDTH, HEIGHT, COLUMNS, ROWS = 61, 45, 4, 3


@pytest.fixture(params=[1, 3])
def projected(request):
    """Gaussians in and around `images` images, some of them culled, with undefined depths."""
    g = torch.Generator().manual_seed(request.param)
    means2d = torch.rand(request.param, 150, 2, generator=g) * 80 - 10
    radii = torch.randint(-3, 30, (request.param, 150, 2), generator=g).clamp_min(0).int()
    depths = 0.1 + 5 * torch.rand(request.param, 150, generator=g)
    radii[:, :20] = 0
    depths[:, :5], means2d[:, 5:8] = float("nan"), float("nan")
    return means2d, radii, depths


def by_hand(means2d, radii, depths):
    """The list of each tile, nearest first, image by image, row by row."""
    images, count = depths.shape
    lists = [[] for _ in range(images * ROWS * COLUMNS)]
    for i in range(images):
        for n in sorted(range(count), key=lambda n: float(depths[i, n])):
            if not (radii[i, n] > 0).all():
                continue
            (x, y), (rx, ry) = means2d[i, n].tolist(), radii[i, n].tolist()
            for row in range(max(0, math.floor((y - ry) / 16)), min(ROWS, math.ceil((y + ry) / 16))):
                for column in range(max(0, math.floor((x - rx) / 16)), min(COLUMNS, math.ceil((x + rx) / 16))):
                    lists[(i * ROWS + row) * COLUMNS + column].append(i * count + n)
    return lists


def as_lists(offsets, ids):
    ends = [*offsets.flatten().tolist(), len(ids)]
    return [ids[a:b].tolist() for a, b in zip(ends, ends[1:])]


@pytest.mark.parametrize("isect_capacity", [None, 20_000])
def test_each_tile_gets_what_touches_it_from_front_to_back(projected, isect_capacity):
    wanted = by_hand(*projected)
    offsets, ids, pairs = bin_tiles(*projected, WIDTH, HEIGHT, isect_capacity)
    assert offsets.shape == (len(projected[2]), ROWS, COLUMNS) and offsets.dtype == ids.dtype == torch.int32
    assert as_lists(offsets, ids) == wanted
    assert int(pairs) == sum(map(len, wanted)) and len(ids) == (isect_capacity or int(pairs))


def test_too_small_a_capacity_leaves_out_the_farthest_and_reports_it():
    """Protects steps whose intersection capacity was too small: the farthest are left out, and the count shows it."""
    means2d, depths = torch.full((1, 10, 2), 8.0), torch.arange(10, 0, -1.0)[None]
    radii = torch.full((1, 10, 2), 4, dtype=torch.int32)
    offsets, ids, pairs = bin_tiles(means2d, radii, depths, 16, 16, 6)
    assert int(pairs) == 10 and as_lists(offsets, ids) == [[9, 8, 7, 6, 5, 4]]


def test_centres_of_cameras_are_those_of_the_inverse():
    viewmats = torch.eye(4).repeat(5, 1, 1)
    viewmats[:, :3] = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(camera_centers(viewmats), torch.inverse(viewmats)[:, :3, 3], atol=1e-4, rtol=1e-4)
