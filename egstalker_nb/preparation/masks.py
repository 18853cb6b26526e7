"""Soft masks of head, torso and background for every frame.

The person comes from MediaPipe's selfie segmentation, steadied over three frames and sharpened along the picture's
own edges. The head is what lies above a line that follows the jaw from ear to ear and runs outwards from there, plus
hair that hangs below that line, less cloth that reaches above it: both are recognised by the clip's own colours.
"""
from __future__ import annotations

import cv2
import numpy as np

from ..face.landmarks import CHIN, FOREHEAD, JAW, OVAL

#: at 512 px: softness of the border between head and torso (standard deviation, px)
FEATHER = 2.5
#: the border lies this far outside the tracked jaw, in heights of the face: the chin's own edge belongs to the head
JAW_GAP = 0.012
#: where the border leaves the jaw on its way outwards: index into JAW, at the height of the lower lip (hair behind
#: the neck stays with the head); and its slope downwards
LEAVE = 5
SLOPE = 0.1
#: the same at the ear lobes: cloth that reaches up between the two lines is torso
LEAVE_LOBE = 3
#: guided filter: side it works at (px), its radius there, and the contrast (squared) that it takes for an edge
GUIDE_SIDE, GUIDE_RADIUS, GUIDE_EDGE = 256, 4, 1e-3
#: side at which hair is recognised, px
HAIR_SIDE = 256
#: bins of lightness and of the two colour axes
BINS = (16, 32, 32)


def smooth_in_time(landmarks: np.ndarray) -> np.ndarray:
    """Landmarks [N, P, 2] averaged with their neighbours in time (1, 2, 1), so that mask edges do not tremble."""
    padded = np.concatenate([landmarks[:1], landmarks, landmarks[-1:]])
    return (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4


def face_axes(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Unit vectors to the face's right in the image and down, and the face's height in px, from [478, 2]."""
    down = points[CHIN] - points[FOREHEAD]
    height = float(np.linalg.norm(down))
    down = down / max(height, 1e-6)
    return np.array([down[1], -down[0]]), down, height


def head_polygon(points: np.ndarray, size: int, leave: int = LEAVE) -> np.ndarray:
    """Outline of everything above the border between head and torso.

    Args:
        points: [478, 2] px. size: picture size S. leave: index into JAW at which the border leaves the jaw.

    Returns:
        [M, 2] px; reaches beyond the picture on the other three sides.
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


def fill(polygon: np.ndarray, size: int) -> np.ndarray:
    """[M, 2] px -> [S, S] float32, 1 inside, with a one-pixel soft edge."""
    image = np.zeros((size, size), np.uint8)
    # fillPoly takes 1/16 px; picture centres lie at +0.5
    cv2.fillPoly(image, [np.round((polygon - 0.5) * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return image.astype(np.float32) / 255


def follow_edges(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Draw a coarse mask's edge to the picture's edges (guided filter, its coefficients computed at low resolution).

    Args:
        image: [S, S, 3] uint8. mask: [256, 256] float32 0..1.

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
    """Person mask at full size, its edge drawn to the picture's edges, one connected person only.

    Args:
        image: [S, S, 3] uint8. person: [256, 256] float32 0..1. face: [S, S] float32, 1 inside the face.

    Returns:
        [S, S] float32 0..1.
    """
    size = image.shape[0]
    mask = np.maximum(np.clip((follow_edges(image, person) - 0.15) / 0.7, 0, 1), face)
    count, labels = cv2.connectedComponents((mask > 0.4).astype(np.uint8))
    if count > 2 and (face > 0.5).any():
        # other people and false alarms go; what touches the face stays, with its soft edge
        own = labels == np.bincount(labels[face > 0.5]).argmax()
        reach = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (size // 50) + 1,) * 2)
        mask = mask * cv2.GaussianBlur(cv2.dilate(own.astype(np.float32), reach), (0, 0), size / 200)
    return mask


class Colours:
    """Which colours this person's hair, skin and clothes have: tables over Lab colours, each summing to 1.

    Attributes:
        hair, skin, cloth: [bins] float32.
    """

    def __init__(self, samples: list[tuple[np.ndarray, ...]]):
        """From some frames: colour bins [S, S], then bool [S, S] where there is surely hair, skin and cloth."""
        total = int(np.prod(BINS))
        tables = []
        for k in (1, 2, 3):
            counts = sum(np.bincount(s[0][s[k]], minlength=total) for s in samples).astype(np.float32)
            table = counts.reshape(BINS)
            for axis in range(3):
                table = _blur_axis(table, axis)
            tables.append(table.ravel() / max(float(table.sum()), 1.0))
        self.hair, self.skin, self.cloth = tables
        # a colour that is hardly ever seen in the hair is not hair
        self._hair_like = self.hair / (self.hair + self.skin + 2e-5)
        self._cloth_like = self.cloth / (self.cloth + 3 * np.maximum(self.hair, self.skin) + 2e-5)

    @staticmethod
    def bins(image: np.ndarray) -> np.ndarray:
        """[..., 3] uint8 RGB -> [...] int32 index into the tables."""
        lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB).astype(np.int32)
        # skin, hair and most cloth use the middle of the colour axes only: 64..192 gets all the bins
        colour = np.clip(lab[..., 1:] - 64, 0, 127)
        return ((lab[..., 0] * BINS[0] // 256) * BINS[1] + colour[..., 0] * BINS[1] // 128) * BINS[2] \
            + colour[..., 1] * BINS[2] // 128

    def likeness(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """[S, S, 3] uint8 -> how much each pixel looks like hair (not skin), and like cloth: [S, S] float32 0..1."""
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


def _touching(region: np.ndarray, other: np.ndarray, least: int) -> np.ndarray:
    """The connected parts of `region` that share at least `least` pixels with `other`; bool arrays [S, S]."""
    count, labels = cv2.connectedComponents(region.astype(np.uint8))
    shared = np.bincount(labels[other], minlength=count)
    shared[0] = 0
    return np.isin(labels, np.flatnonzero(shared >= least))


def head_part(image: np.ndarray, person: np.ndarray, face: np.ndarray, points: np.ndarray,
              colours: Colours) -> np.ndarray:
    """What of the person is head: above the border or hair that hangs below it, without cloth that reaches up.

    Args:
        image: [S, S, 3] uint8. person, face: [S, S] float32 0..1. points: [478, 2] px.

    Returns:
        [S, S] float32 0..1 with a soft edge.
    """
    side = image.shape[0]
    above = fill(head_polygon(points, side), side) > 0.5
    below_lobe = fill(head_polygon(points, side, LEAVE_LOBE), side) < 0.5
    like_hair, like_cloth = colours.likeness(image)
    aside = beside_chin(points, side)
    # hair stays near the head: a shoulder in the same colour must not be taken along. Under the chin is neck
    hair = (like_hair * person > 0.5) & (face < 0.5) & (aside < 1.0) & ((aside > 0.15) | above)
    # thin strips are shadows beside the neck
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
    # the soft edge is taken among the person's pixels only: what is background counts for neither side
    soft, weight = FEATHER * side / 512, person + 1e-3
    return cv2.GaussianBlur(whole * weight, (0, 0), soft) / cv2.GaussianBlur(weight, (0, 0), soft)


def beside_chin(points: np.ndarray, size: int) -> np.ndarray:
    """Distance of each pixel from the line through the chin along the face, in heights of the face: [S, S] float32."""
    right, _, height = face_axes(points)
    x = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(points[CHIN][0])) * np.float32(right[0])
    y = (np.arange(size, dtype=np.float32) + 0.5 - np.float32(points[CHIN][1])) * np.float32(right[1])
    return np.abs(x[None] + y[:, None]) / np.float32(height)


def split(image: np.ndarray, person: np.ndarray, points: np.ndarray, colours: Colours,
          exact: bool = False) -> np.ndarray:
    """Head, torso and background of one frame.

    Args:
        image: [S, S, 3] uint8. points: [478, 2] px. colours: of the clip.
        person: float32 0..1, [256, 256] as the network sees it, or [S, S] where it is `exact` (the video's own alpha).

    Returns:
        [S, S, 3] uint8: head, torso, background; the sum is 255 everywhere.
    """
    size = image.shape[0]
    face = fill(points[OVAL], size)
    if not exact:
        person = refine_person(image, person, face)
    side = min(size, HAIR_SIDE)
    small = [cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA) for x in (image, person, face)]
    part = cv2.resize(head_part(*small, points * (side / size), colours), (size, size))
    # along the jaw the border follows the landmarks at full resolution
    jaw = cv2.GaussianBlur(face, (0, 0), FEATHER * size / 512)
    whole = np.rint(person * 255).astype(np.uint8)
    head = np.rint(whole * np.minimum(np.maximum(part, jaw), 1)).astype(np.uint8)
    return cv2.merge([head, whole - head, 255 - whole])


def surely(image: np.ndarray, person: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, ...]:
    """What `Colours` learns from a frame.

    Args:
        image: [S, S, 3] uint8. person: [256, 256] float32 0..1. points: [478, 2] px.

    Returns:
        [S, S] each: int32 colour bins, and bool where there is surely hair, skin and cloth.
    """
    size = image.shape[0]
    face = fill(points[OVAL], size)
    _, down, height = face_axes(points)
    reach = _disc(2 * max(1, int(0.04 * height)) + 1)
    sure = refine_person(image, person, face) > 0.95
    above = fill(head_polygon(points, size), size) > 0.5
    aside = beside_chin(points, size)
    hair = sure & above & (fill(head_polygon(points, size, LEAVE_LOBE), size) > 0.5) & (cv2.dilate(face, reach) < 0.5)
    # skin is the face and, with its shadows, the neck under the chin
    neck = sure & ~above & (aside < 0.15)
    cloth = sure & (fill(head_polygon(points + 0.12 * height * down, size), size) < 0.5)
    return Colours.bins(image), hair, (cv2.erode(face, reach) > 0.5) | neck, cloth
