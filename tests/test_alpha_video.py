"""Protects: videos with alpha, as editing programs and browsers decode them."""
import numpy as np
import pytest
from video_material import read_alpha_video

from egstalker_nb.core.errors import InputError
from egstalker_nb.media.alpha_video import ALPHA_FORMATS, write_alpha_video
from egstalker_nb.media.synthetic import XMP


def gradients(count, height, width):
    """Smooth colours under a moving alpha that takes all values."""
    y, x = np.mgrid[:height, :width]
    for i in range(count):
        alpha = np.clip(300 - 500 * np.hypot((y - height / 2) / height, (x - width / 2 - i) / width), 0, 255)
        yield np.dstack([np.full((height, width), 200), 255 * x / width, 255 * y / height, alpha]).astype(np.uint8)


@pytest.mark.parametrize("suffix", ALPHA_FORMATS)
@pytest.mark.parametrize("count, height, width", [(1, 64, 64), (7, 65, 97), (30, 48, 32)])
def test_frames_and_alpha_come_back(tmp_path, suffix, count, height, width):
    """Any length and any size, also odd ones: straight colours, the alpha, and as much sound as there are frames."""
    path, frames = tmp_path / f"a{suffix}", list(gradients(count, height, width))
    write_alpha_video(path, iter(frames), np.zeros(100, np.float32))
    images, sound = read_alpha_video(path)
    images, want = images[:, :height, :width].astype(int), np.stack(frames).astype(int)
    assert images.shape == want.shape and abs(sound - count * 1920) <= 1920  # 48 kHz; Opus has whole packets
    lost = abs(images[..., 3] - want[..., 3])  # VP9 loses some levels on the steep edges of so small an image
    assert lost.mean() < 1 and lost.max() <= 24
    shown = want[..., 3] > 128
    assert abs(images[shown][:, :3] - want[shown][:, :3]).mean() < 3
    assert (XMP in path.read_bytes()) == (suffix == ".mov")


@pytest.mark.parametrize("suffix", ALPHA_FORMATS)
@pytest.mark.parametrize("frames", [[], [np.zeros((8, 8, 3), np.uint8)], [np.zeros((8, 8, 4))],
                                    [np.zeros((64, 64, 4), np.uint8), np.zeros((64, 32, 4), np.uint8)]])
def test_nothing_is_left_of_a_video_that_cannot_be(tmp_path, suffix, frames):
    with pytest.raises(InputError, match="expected"):
        write_alpha_video(tmp_path / f"a{suffix}", frames)
    assert list(tmp_path.iterdir()) == []
