"""The portrait as layers: head with a soft edge, clean plate behind it, eyeballs, teeth, and a depth map.

All coordinates are crop pixels: pixels of a square crop of scikit-image's `astronaut()`, x right, y down, 0 .. `SIDE`.
Textures have `TEXELS` texels per crop pixel. The numbers below were measured on this portrait.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from scipy.interpolate import CubicSpline, PchipInterpolator, RBFInterpolator
from scipy.ndimage import distance_transform_edt, gaussian_filter, map_coordinates

CROP_X, CROP_Y, SIDE = 107, 2, 240
TEXELS = 4

UPPER_LIP = (78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308)
LOWER_LIP = (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)
EYES = (
    ((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    ((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
IRISES = (468, 473)
FACE_OVAL = (10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
             152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # fmt: skip
# The neck down to the black collar, and the part of the collar that moves with it (black on black needs no edge).
NECK = ((78, 135), (79, 152), (80, 160), (81, 170), (82, 176), (88, 181), (100, 183), (112, 184), (121, 187),
        (128, 188), (136, 187), (145, 183), (147, 173), (148, 165), (152, 158), (156, 145))  # fmt: skip
COLLAR = ((83, 170), (85, 180), (92, 200), (120, 205), (146, 200), (150, 188), (148, 172))
# Upper and lower edge of the helmet ring where it is visible on both sides of the neck.
RING_OUTER = ((32, 157.5), (50, 149.3), (62, 146.8), (75, 145.5), (150, 171.3), (160, 178.5), (170, 187.5))
RING_INNER = ((32, 164), (50, 155), (62, 152), (75, 151), (153, 178), (160, 184.5), (170, 194.5))
# Lower edge of the upper teeth (x, y), and x of the gaps between the teeth.
TEETH_EDGE = ((99, 141), (102, 143.4), (105, 145.2), (108, 146.4), (113, 147.3), (118.5, 147.2), (123.5, 146.7),
              (127, 145.2), (129.5, 143.4), (133, 141.5))  # fmt: skip
TEETH_GAPS = (103.8, 106.4, 110.6, 115.8, 121.4, 125.6, 128.4)


@dataclass
class Opening:
    """An opening of the face (mouth or eye) between two contours given as functions of x.

    Attributes:
        left, right: x of the corners, crop px.
        upper, lower: functions x -> y, crop px; equal at the corners and constant beyond them.
    """

    left: float
    right: float
    upper: object
    lower: object

    @classmethod
    def between(cls, upper, lower):
        """From two polylines [n, 2] that share their first and last point."""

        def curve(points):
            spline = PchipInterpolator(points[:, 0], points[:, 1])
            return lambda x: spline(np.clip(x, points[0, 0], points[-1, 0]))

        return cls(float(upper[0, 0]), float(upper[-1, 0]), curve(upper), curve(lower))


@dataclass
class Portrait:
    """Layers of the portrait.

    Attributes:
        head: float32 [S, S, 4] RGBA texture, 0..1, straight alpha; transparent outside the head and in the openings.
        under: float32 [S, S, 3] texture behind the openings of the eyes (eyeballs), extended beyond the lids.
        teeth: float32 [S, S, 4] RGBA upper teeth.
        plate: float32 [S, S, 3] background and shoulders with the head removed.
        landmarks: float64 [478, 3] x, y (crop px), z (same scale, away from the camera).
        depth: float32 [n, n] depth of the head's surface on the vertex grid `grid()`.
        mouth: its opening.
        eyes: their two openings.
    """

    head: np.ndarray
    under: np.ndarray
    teeth: np.ndarray
    plate: np.ndarray
    landmarks: np.ndarray
    depth: np.ndarray
    mouth: Opening
    eyes: list


def grid():
    """x and y of the mesh vertices: two float64 [2 SIDE + 1, 2 SIDE + 1], crop px, half a pixel apart."""
    line = np.arange(2 * SIDE + 1) / 2.0
    return np.meshgrid(line, line)


def find_landmarks(image):
    """The 478 landmarks of the portrait, float64 [478, 3] crop px, from a uint8 RGB texture of the crop."""
    import mediapipe as mp

    with mp.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        found = mesh.process(image).multi_face_landmarks[0].landmark
    return np.array([[p.x, p.y, p.z] for p in found], np.float64) * SIDE


def polygon(points, blur=0.0):
    """Mask of a polygon in crop px: float32 [S, S] 0..1, edge softened by a Gaussian of `blur` crop px."""
    size = SIDE * TEXELS
    mask = np.zeros((size, size), np.uint8)
    fixed = np.round(np.asarray(points, np.float64) * TEXELS * 16 - 8).astype(np.int32)
    cv2.fillPoly(mask, [fixed], 255, cv2.LINE_AA, 4)
    mask = mask.astype(np.float32) / 255
    return gaussian_filter(mask, blur * TEXELS) if blur else mask


def outline(opening, grow=0.0):
    """Closed polygon [m, 2] of an opening, dilated vertically by `grow` crop px."""
    x = np.linspace(opening.left, opening.right, 80)
    upper = np.stack([x, opening.upper(x) - grow], 1)
    lower = np.stack([x, opening.lower(x) + grow], 1)
    return np.concatenate([upper, lower[::-1]])


def head_mask(image, landmarks):
    """Soft mask of hair, face, ears and neck: float32 [S, S] 0..1."""
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    y, x = np.mgrid[0 : half.shape[0], 0 : half.shape[1]] * 2.0 / TEXELS
    seeds = np.full(half.shape[:2], cv2.GC_BGD, np.uint8)
    around = ((x - 120) / 82) ** 2 + ((y - 85) / 78) ** 2 < 1
    seeds[around & (y < 132)] = cv2.GC_PR_BGD
    seeds[((x - 120) / 68) ** 2 + ((y - 80) / 62) ** 2 < 1] = cv2.GC_PR_FGD
    face = polygon(landmarks[list(FACE_OVAL), :2])[::2, ::2] > 0.5
    neck = polygon(NECK)[::2, ::2] > 0.5
    inner = cv2.erode((face | neck).astype(np.uint8), np.ones((9, 9))) > 0
    outer = cv2.dilate((face | neck).astype(np.uint8), np.ones((13, 13))) > 0
    seeds[outer & ~inner & (y >= 110)] = cv2.GC_PR_FGD
    seeds[inner] = cv2.GC_FGD
    seeds[((x - 120) / 50) ** 2 + ((y - 62) / 40) ** 2 < 1] = cv2.GC_FGD
    cv2.setRNGSeed(1)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(half[..., ::-1].copy(), seeds, None, *models, 6, cv2.GC_INIT_WITH_MASK)
    mask = ((seeds == cv2.GC_FGD) | (seeds == cv2.GC_PR_FGD)).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask)
    mask = (labels == 1 + np.argmax(stats[1:, cv2.CC_STAT_AREA])).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, np.ones((9, 9)))
    mask = cv2.resize(mask.astype(np.float32), None, fx=2, fy=2, interpolation=cv2.INTER_LINEAR)
    hair = np.clip((120 - np.arange(mask.shape[0]) / TEXELS) / 20, 0, 1)[:, None]
    skin = hair * gaussian_filter(mask, 1.1 * TEXELS) + (1 - hair) * gaussian_filter(mask, 0.7 * TEXELS)
    return np.clip((skin - 0.25) / 0.6, 0, 1)  # half a pixel inwards, without a rim of the old background


def fill_from(image, known, blur=0.0):
    """Fill texels outside `known` (bool [S, S]) with the colour of the nearest known one; float32 [S, S, 3]."""
    rows, cols = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = image[rows, cols]
    if blur:
        soft = gaussian_filter(filled, (blur * TEXELS, blur * TEXELS, 0))
        filled = np.where(known[..., None], filled, soft)
    return filled.astype(np.float32)


def clean_plate(image, mask):
    """Background and shoulders with the head removed: float32 [S, S, 3] 0..1.

    The wall is inpainted; behind the neck the helmet ring is interpolated between its visible ends, and black inside.
    """
    scale = 1.0 / TEXELS
    small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    hole = cv2.resize(mask, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) > 0.02
    hole = cv2.dilate(hole.astype(np.uint8), np.ones((5, 5)))
    hole[205:] = 0
    y, x = np.mgrid[0:SIDE, 0:SIDE] + 0.5
    outer, inner = (CubicSpline(*np.array(line).T)(x) for line in (RING_OUTER, RING_INNER))
    unknown = hole | ((y > outer - 1.5) & (x > 60) & (x < 165))
    wall = cv2.inpaint(small, unknown.astype(np.uint8), 6, cv2.INPAINT_TELEA)
    ring = 0.5 + 0.5 * np.cos(np.clip((y - outer) / (inner - outer), 0, 1) * 3.1)
    ring = np.array([52, 42, 56]) + ring[..., None] * np.array([84, 76, 92])
    below = np.clip(y - outer + 0.5, 0, 1)[..., None]
    dark = np.clip((y - inner) / 2 + 0.5, 0, 1)[..., None]
    filled = (1 - below) * wall + below * ((1 - dark) * ring + dark * np.array([10, 8, 8]))
    large = cv2.resize(filled, None, fx=TEXELS, fy=TEXELS, interpolation=cv2.INTER_LINEAR) / 255
    soft = gaussian_filter(cv2.resize(hole.astype(np.float32), None, fx=TEXELS, fy=TEXELS), 0.5 * TEXELS)[..., None]
    return (soft * large + (1 - soft) * image / 255.0).astype(np.float32)


def surface_depth(mask, landmarks):
    """Depth of the head on the vertex grid: from landmarks inside the face, a rounded profile for hair and neck."""
    x, y = grid()
    n = x.shape[0]
    inside = cv2.resize(mask, (n, n), interpolation=cv2.INTER_AREA) > 0.5
    inside |= (np.abs(x - 117) < 36) & (y > 178)  # the neck continues inside the collar
    reach = np.minimum(distance_transform_edt(inside) / 2.0, 42.0) / 42.0
    profile = 42.0 - 58.0 * (1 - (1 - reach) ** 2) ** 0.7
    profile += 24.0 * np.clip((y - 168) / 16.0, 0, 1)  # the neck lies further back than the chin
    rim = np.argwhere(inside & (y < 170) & (distance_transform_edt(inside) < 3))[::25] / 2.0
    at = np.concatenate([landmarks[:468, :2], rim[:, ::-1]])
    column = np.clip(np.round(landmarks[:468, :2] * 2).astype(int), 0, n - 1)
    residual = np.concatenate([landmarks[:468, 2] - profile[column[:, 1], column[:, 0]], np.zeros(len(rim))])
    spline = RBFInterpolator(at, residual, kernel="linear", smoothing=2.0, neighbors=40)
    coarse = spline(np.stack([x[::4, ::4].ravel(), y[::4, ::4].ravel()], 1)).reshape(x[::4, ::4].shape)
    near = np.clip(1.6 - distance_transform_edt(polygon(landmarks[list(FACE_OVAL), :2])[::8, ::8] < 0.5) / 20.0, 0, 1)
    coarse *= np.pad(near, ((0, 1), (0, 1)), mode="edge")
    fine = cv2.resize(coarse, (n, n), interpolation=cv2.INTER_CUBIC)
    return gaussian_filter(profile + fine, 2.0).astype(np.float32)


def upper_teeth(image, mouth):
    """The portrait's upper teeth: float32 [S, S, 4] RGBA, with a lower edge for each tooth."""
    x = np.linspace(mouth.left + 2.5, mouth.right - 5.0, 300)
    edge = np.array(TEETH_EDGE)
    bottom = PchipInterpolator(edge[:, 0], edge[:, 1])(np.clip(x, edge[0, 0], edge[-1, 0]))
    for gap in TEETH_GAPS:
        bottom -= 0.7 * np.exp(-(((x - gap) / 0.5) ** 2))
    top = mouth.upper(x) + 0.5
    shape = np.concatenate([np.stack([x, top], 1), np.stack([x, np.maximum(bottom, top)], 1)[::-1]])
    known = polygon(shape) > 0.9
    colour = fill_from(image.astype(np.float32) / 255, known)
    grown = np.concatenate([np.stack([x, top - 3], 1), np.stack([x, np.maximum(bottom, top)], 1)[::-1]])
    return np.dstack([colour, polygon(grown, 0.25)])


def load_portrait():
    """Cut the portrait into layers. Needs scikit-image, which contains the photograph, and MediaPipe."""
    from skimage.data import astronaut

    crop = astronaut()[CROP_Y : CROP_Y + SIDE, CROP_X : CROP_X + SIDE]
    image = cv2.resize(crop, None, fx=TEXELS, fy=TEXELS, interpolation=cv2.INTER_CUBIC)
    landmarks = find_landmarks(image)
    flat = landmarks[:, :2]
    lower_lip = flat[list(LOWER_LIP)].copy()
    lower_lip[1:-1, 1] -= 0.7  # the landmarks are slightly inside the lower lip of this portrait
    mouth = Opening.between(flat[list(UPPER_LIP)], lower_lip)
    eyes = [Opening.between(flat[list(u)], flat[list(low)]) for u, low in EYES]
    mask = head_mask(image, landmarks)
    black = gaussian_filter((image.max(2) < 60).astype(np.float32), 0.5 * TEXELS)
    collar = polygon(COLLAR, 1.5) * np.clip(2 * black - 0.8, 0, 1)
    colour = fill_from(image.astype(np.float32) / 255, (mask > 0.97) | (polygon(COLLAR, 1.5) * black > 0.02), 0.3)
    plate = clean_plate(image, mask)
    mask = np.maximum(mask, collar)
    under = image.astype(np.float32) / 255
    holes = polygon(outline(mouth), 0.12)
    for eye in eyes:
        open_eye = polygon(outline(eye, -0.3)) > 0.5
        box = polygon(outline(eye, 6.0)) > 0.5
        under = np.where(box[..., None], fill_from(under, open_eye, 0.3), under)
        holes = np.maximum(holes, polygon(outline(eye), 0.12))
    lips = polygon(outline(mouth, 0.4)) > 0.5  # no white of the teeth along the edge of the lips
    colour = np.where(lips[..., None], fill_from(colour, ~lips), colour)
    depth = surface_depth(mask, landmarks)
    landmarks[:, 2] = map_coordinates(depth, 2 * landmarks[:, 1::-1].T, order=1)  # of the rendered surface
    return Portrait(
        head=np.dstack([colour, mask * (1 - holes)]).astype(np.float32), under=under.astype(np.float32),
        teeth=upper_teeth(image, mouth), plate=plate, landmarks=landmarks,
        depth=depth, mouth=mouth, eyes=eyes,
    )  # fmt: skip
