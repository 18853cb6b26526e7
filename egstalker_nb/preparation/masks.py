"""Soft masks of head, torso and background for every frame.

The person comes from MediaPipe's selfie segmentation, smoothed over three frames and refined along image edges. The
head is everything above a line that follows the jaw from ear to ear and continues outwards from there, plus hair that
hangs below that line, minus cloth above it: both are classified by a colour model of the clip.
"""
from __future__ import annotations

from typing import Sequence

import cv2
import numpy as np

from ..face.landmarks import CHIN, FOREHEAD, JAW, OVAL

#: at 512 px: softness of the border between head and torso (standard deviation, px)
FEATHER = 2.5
#: distance of the border outside the tracked jaw, in face heights: the edge of the chin belongs to the head
JAW_GAP = 0.012
#: index into JAW where the border leaves the jaw and continues outwards: at the height of the lower lip, so that hair
#: behind the neck belongs to the head; and its downward slope
LEAVE = 5
SLOPE = 0.1
#: the same at the ear lobes: cloth between the two lines is torso
LEAVE_LOBE = 3
#: guided filter: working resolution (px), its radius there, and the squared contrast that counts as an edge
GUIDE_SIDE, GUIDE_RADIUS, GUIDE_EDGE = 256, 4, 1e-3
#: resolution at which hair is classified, px
HAIR_SIDE = 256
#: histogram bins of L, a and b
COLOUR_BINS = (16, 32, 32)


def smooth_in_time(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks [N, P, 2] smoothed over the neighbouring frames (1, 2, 1), so that mask edges do not jitter."""
    padded = np.concatenate([landmarks[:1], landmarks, landmarks[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def face_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Unit vectors across the face (to the right of the image) and down, and its height in px, from points [478, 2]."""
    down = points[CHIN] - points[FOREHEAD]
    height = float(np.linalg.norm(down))
    down = down / max(height, 1e-6)
    return np.array([down[1], -down[0]]), down, height


def head_polygon(points: np.ndarray, size: int, leave: int = LEAVE) -> np.ndarray:
    """Outline of everything above the border between head and torso.

    Args:
        points: [478, 2] px.
        size: image size S.
        leave: index into JAW at which the border leaves the jaw.

    Returns:
        [M, 2] px; extends beyond the image on the other three sides.
    """
    right, down, height = face_axes(points)
    jaw = points[JAW[leave:-leave]]
    centre = points[OVAL].mean(axis=0)
    outwards = jaw - centre
    jaw = jaw + JAW_GAP * height * outwards / np.linalg.norm(outwards, axis=1, keepdims=True)
    far = 2.0 * size
    left_end = jaw[0] + far * (-right + SLOPE * down)
    right_end = jaw[-1] + far * (right + SLOPE * down)
    up = -(2 + SLOPE) * far * down
    return np.concatenate([[left_end + up, left_end], jaw, [right_end, right_end + up]])


def fill_polygon(polygon: np.ndarray, size: int) -> np.ndarray:
    """[M, 2] px -> [S, S] float32, 1 inside, with a one-pixel soft edge."""
    image = np.zeros((size, size), np.uint8)
    # fillPoly takes 1/16 px; pixel centres lie at +0.5
    cv2.fillPoly(image, [np.round((polygon - 0.5) * 16).astype(np.int32)], (255,), cv2.LINE_AA, 4)
    return image.astype(np.float32) / 255


def follow_edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Align the edge of a coarse mask with image edges (guided filter, its coefficients computed at low resolution).

    Args:
        image: [S, S, 3] uint8.
        mask: [256, 256] float32 0..1.

    Returns:
        [S, S] float32, about 0..1.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32) / 255
    side = min(GUIDE_SIDE, grey.shape[0])
    guide = cv2.resize(grey, (side, side), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask, (side, side), interpolation=cv2.INTER_AREA)
    window = (2 * GUIDE_RADIUS + 1,) * 2
    mean_g, mean_m = cv2.blur(guide, window), cv2.blur(mask, window)
    slope = (cv2.blur(guide * mask, window) - mean_g * mean_m) / (cv2.blur(guide * guide, window) - mean_g**2
                                                                  + GUIDE_EDGE)
    offset = mean_m - slope * mean_g
    slope, offset = (cv2.resize(cv2.blur(x, window), grey.shape, interpolation=cv2.INTER_LINEAR)
                     for x in (slope, offset))
    return slope * grey + offset


def refine_person(image: np.ndarray, person: np.ndarray, face: np.ndarray) -> np.ndarray:
    """Person mask at full resolution, aligned with image edges, restricted to one connected person.

    Args:
        image: [S, S, 3] uint8.
        person: [256, 256] float32 0..1.
        face: [S, S] float32, 1 inside the face.

    Returns:
        [S, S] float32 0..1.
    """
    size = image.shape[0]
    mask = np.maximum(np.clip((follow_edges(image, person) - 0.15) / 0.7, 0, 1), face)
    count, labels = cv2.connectedComponents((mask > 0.4).astype(np.uint8))
    if count > 2 and (face > 0.5).any():
        # other people and false positives are removed; the component of the face stays, with its soft edge
        own = labels == np.bincount(labels[face > 0.5]).argmax()
        reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (size // 50) + 1,) * 2)
        mask = mask * cv2.GaussianBlur(cv2.dilate(own.astype(np.float32), reach), (0, 0), size / 200)
    return mask


class ColourModel:
    """Colour histograms of one person's hair, skin and clothes over Lab bins, each summing to 1.

    Args:
        samples: of some frames, see `confident_regions`.

    Attributes:
        hair, skin, cloth: [bins] float32.
    """

    def __init__(self, samples: Sequence[tuple[np.ndarray, ...]]):
        total = int(np.prod(COLOUR_BINS))
        tables = []
        for k in (1, 2, 3):
            counts = np.sum([np.bincount(s[0][s[k]], minlength=total) for s in samples], axis=0)
            table = counts.astype(np.float32).reshape(COLOUR_BINS)
            for axis in range(3):
                table = _blur_axis(table, axis)
            tables.append(table.ravel() / max(float(table.sum()), 1.0))
        self.hair, self.skin, self.cloth = tables
        # the constant keeps colours that are rare everywhere from counting as hair
        self._hair_like = self.hair / (self.hair + self.skin + 2e-5)
        self._cloth_like = self.cloth / (self.cloth + 3 * np.maximum(self.hair, self.skin) + 2e-5)

    @staticmethod
    def bins(image: np.ndarray) -> np.ndarray:
        """[..., 3] uint8 RGB -> [...] int32 index into the histograms."""
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int32)
        # skin, hair and most cloth have a and b near the middle: all bins cover 64..192
        colour = np.clip(lab[..., 1:] - 64, 0, 127)
        levels, a_bins, b_bins = COLOUR_BINS
        return ((lab[..., 0] * levels // 256) * a_bins + colour[..., 0] * a_bins // 128) * b_bins \
            + colour[..., 1] * b_bins // 128

    def likelihoods(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, S, 3] uint8 -> likelihood of hair (against skin) and of cloth for each pixel: [S, S] float32 0..1."""
        index = self.bins(image)
        soft = image.shape[0] / 200
        return (cv2.GaussianBlur(self._hair_like[index], (0, 0), soft),
                cv2.GaussianBlur(self._cloth_like[index], (0, 0), soft))


def _blur_axis(table: np.ndarray, axis: int) -> np.ndarray:
    padded = np.concatenate([np.take(table, [0], axis), table, np.take(table, [-1], axis)], axis)
    n = table.shape[axis]
    a, b, c = (np.take(padded, range(k, k + n), axis) for k in range(3))
    return (a + 2 * b + c) / 4


def _disc(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def _touching(region: np.ndarray, other: np.ndarray, min_pixels: int) -> np.ndarray:
    """The connected parts of `region` that share at least `min_pixels` pixels with `other`; bool arrays [S, S]."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8))
    shared = np.bincount(labels[other], minlength=count)
    shared[0] = 0
    return np.isin(labels, np.flatnonzero(shared >= min_pixels))


def head_part(image: np.ndarray, person: np.ndarray, face: np.ndarray, points: np.ndarray,
              colours: ColourModel) -> np.ndarray:
    """The head's part of the person: above the border, or hair that hangs below it, without cloth above it.

    Args:
        image: [S, S, 3] uint8.
        person, face: [S, S] float32 0..1.
        points: [478, 2] px.
        colours: of the clip.

    Returns:
        [S, S] float32 0..1 with a soft edge.
    """
    side = image.shape[0]
    above = fill_polygon(head_polygon(points, side), side) > 0.5
    below_lobe = fill_polygon(head_polygon(points, side, LEAVE_LOBE), side) < 0.5
    like_hair, like_cloth = colours.likelihoods(image)
    lateral = lateral_distance(points, side)
    # hair is near the head: a shoulder of the same colour must not be included. Below the chin is the neck
    hair = (like_hair * person > 0.5) & (face < 0.5) & (lateral < 1.0) & ((lateral > 0.15) | above)
    # thin strips are shadows next to the neck
    broad = cv2.morphologyEx(hair.astype(np.uint8), cv2.MORPH_OPEN, _disc(2 * (side // 70) + 1))
    hair &= cv2.dilate(broad, _disc(5)) > 0
    hair = _touching(hair, above, int(0.002 * side * side))
    cloth = (like_cloth * person > 0.5) & (face < 0.5) & below_lobe & ~hair
    cloth = _touching(cloth, ~above, int(0.001 * side * side))
    # slits between jaw and hair belong to the head, slivers along the cloth to the torso
    whole = cv2.morphologyEx((hair | (above & ~cloth)).astype(np.uint8), cv2.MORPH_CLOSE, _disc(2 * (side // 50) + 1))
    whole[cloth] = 0
    shown = whole * (person > 0.3)
    whole[(shown > cv2.morphologyEx(shown, cv2.MORPH_OPEN, _disc(2 * (side // 50) + 1))) & below_lobe] = 0
    # the edge is blurred over pixels of the person only: background counts for neither side
    soft, weight = FEATHER * side / 512, person + 1e-3
    return cv2.GaussianBlur(whole * weight, (0, 0), soft) / cv2.GaussianBlur(weight, (0, 0), soft)


def lateral_distance(points: np.ndarray, size: int) -> np.ndarray:
    """Distance of each pixel from the face's vertical axis through the chin, in face heights: [S, S] float32."""
    right, _, height = face_axes(points)
    x = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(points[CHIN][0])) * np.float32(right[0])
    y = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(points[CHIN][1])) * np.float32(right[1])
    return np.abs(x[None] + y[:, None]) / np.float32(height)


def segment(image: np.ndarray, person: np.ndarray, points: np.ndarray, colours: ColourModel,
            exact: bool = False) -> np.ndarray:
    """Soft masks of head, torso and background of one frame.

    Args:
        image: [S, S, 3] uint8.
        person: float32 0..1, [256, 256] from the segmentation network, or [S, S] with `exact`.
        points: [478, 2] px.
        colours: of the clip.
        exact: the person mask is the video's alpha channel.

    Returns:
        [S, S, 3] uint8: head, torso, background; the sum is 255 everywhere.
    """
    size = image.shape[0]
    face = fill_polygon(points[OVAL], size)
    if not exact:
        person = refine_person(image, person, face)
    side = min(size, HAIR_SIDE)
    small_image, small_person, small_face = (cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA)
                                             for x in (image, person, face))
    part = cv2.resize(head_part(small_image, small_person, small_face, points * (side / size), colours), (size, size))
    # along the jaw the border follows the landmarks at full resolution
    jaw = cv2.GaussianBlur(face, (0, 0), FEATHER * size / 512)
    whole = np.rint(person * 255).astype(np.uint8)
    head = np.rint(whole * np.minimum(np.maximum(part, jaw), 1)).astype(np.uint8)
    return cv2.merge([head, whole - head, 255 - whole])


def confident_regions(image: np.ndarray, person: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `ColourModel` learns from a frame: its colours, and the regions that are certainly hair, skin and cloth.

    Args:
        image: [S, S, 3] uint8.
        person: [256, 256] float32 0..1.
        points: [478, 2] px.

    Returns:
        [S, S] each: int32 colour bins, then bool masks of hair, skin and cloth.
    """
    size = image.shape[0]
    face = fill_polygon(points[OVAL], size)
    _, down, height = face_axes(points)
    reach = _disc(2 * max(1, int(0.04 * height)) + 1)
    sure = refine_person(image, person, face) > 0.95
    above = fill_polygon(head_polygon(points, size), size) > 0.5
    lateral = lateral_distance(points, size)
    above_lobe = fill_polygon(head_polygon(points, size, LEAVE_LOBE), size) > 0.5
    hair = sure & above & above_lobe & (cv2.dilate(face, reach) < 0.5)
    # skin: the face and the neck below the chin, with its shadows
    neck = sure & ~above & (lateral < 0.15)
    cloth = sure & (fill_polygon(head_polygon(points + 0.12 * height * down, size), size) < 0.5)
    return ColourModel.bins(image), hair, (cv2.erode(face, reach) > 0.5) | neck, cloth
