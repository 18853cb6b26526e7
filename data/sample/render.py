"""Rendering: the layers of the portrait are deformed, rotated, projected and composited."""

import cv2
import numpy as np
from expression import JAW, Expression, smoothstep
from numba import njit
from portrait import SIDE, TEXELS, grid

DISTANCE = 620.0  # of the camera from the image plane, crop px; also the focal length in crop px
PIVOT = np.array([118.0, 170.0, 40.0])  # centre of rotation in the neck, crop px
CENTRE = np.array([SIDE / 2, SIDE / 2, -DISTANCE])  # camera centre
EYEBALL = 8.2  # radius, crop px
OVERSAMPLE = 2


@njit(cache=True)
def _trace(px, py, pz, faces, size, back, depth):
    """Rasterise the quads of a vertex grid: the grid position (column, row) visible at each pixel, and its depth."""
    for i in range(faces.shape[0]):
        for j in range(faces.shape[1]):
            if not faces[i, j]:
                continue
            for half in range(2):
                if half == 0:
                    ra, ca, rb, cb, rc, cc = i, j, i, j + 1, i + 1, j
                else:
                    ra, ca, rb, cb, rc, cc = i + 1, j + 1, i + 1, j, i, j + 1
                ax, ay = px[ra, ca], py[ra, ca]
                bx, by = px[rb, cb], py[rb, cb]
                cx, cy = px[rc, cc], py[rc, cc]
                area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
                if area < 1e-7:
                    continue  # back-facing or degenerate
                x0 = max(0, int(np.ceil(min(ax, bx, cx) - 0.5)))
                x1 = min(size - 1, int(np.floor(max(ax, bx, cx) - 0.5)))
                y0 = max(0, int(np.ceil(min(ay, by, cy) - 0.5)))
                y1 = min(size - 1, int(np.floor(max(ay, by, cy) - 0.5)))
                for y in range(y0, y1 + 1):
                    for x in range(x0, x1 + 1):
                        qx, qy = x + 0.5, y + 0.5
                        wb = ((qx - ax) * (cy - ay) - (qy - ay) * (cx - ax)) / area
                        wc = ((bx - ax) * (qy - ay) - (by - ay) * (qx - ax)) / area
                        wa = 1.0 - wb - wc
                        if wa < -1e-6 or wb < -1e-6 or wc < -1e-6:
                            continue
                        z = wa * pz[ra, ca] + wb * pz[rb, cb] + wc * pz[rc, cc]
                        if z < depth[y, x]:
                            depth[y, x] = z
                            back[y, x, 0] = wa * ca + wb * cb + wc * cc
                            back[y, x, 1] = wa * ra + wb * rb + wc * rc


def unproject(x, y, z):
    """The point at depth z that projects to (x, y), so that the head at rest renders as the portrait."""
    scale = (z + DISTANCE) / DISTANCE
    return (x - CENTRE[0]) * scale + CENTRE[0], (y - CENTRE[1]) * scale + CENTRE[1], z


class Renderer:
    """Renders frames of one portrait.

    Args:
        portrait: the portrait.
        size: side of the frames in pixels.
    """

    def __init__(self, portrait, size):
        self.portrait, self.size = portrait, size
        self.scale = size * OVERSAMPLE / SIDE
        x, y = grid()
        self.x, self.y, self.z = x, y, portrait.depth.astype(np.float64)
        self.expression = Expression(portrait, x, y, self.z)
        alpha = cv2.dilate((portrait.head[..., 3] > 0.002).astype(np.uint8), np.ones((13, 13)))
        holes = [self._box(portrait.mouth, 4, 14)] + [self._box(eye, 4, 4) for eye in portrait.eyes]
        self.openings = np.any(holes, 0)
        self.eye_boxes = holes[1:]
        solid = cv2.resize(alpha, (x.shape[0] - 1,) * 2, interpolation=cv2.INTER_NEAREST) > 0
        self.faces = solid | self.openings[:-1, :-1]
        self.turns = 1 - smoothstep((y - 172) / 26)  # how far a point moves with the head; 0 at the collar
        self.breathes = smoothstep((y - 125) / 60)
        self.interior = Interior(portrait)

    def _box(self, opening, side, drop):
        """Vertices around an opening, with margins at the sides and below."""
        inside = (self.x > opening.left - side) & (self.x < opening.right + side)
        top = opening.upper(np.linspace(opening.left, opening.right, 50)).min() - side
        bottom = opening.lower(np.linspace(opening.left, opening.right, 50)).max() + drop
        return inside & (self.y > top) & (self.y < bottom)

    def place(self, x, y, z, turns, turn, shift, breath=0.0):
        """Rotate points with the head and project them: (x, y) in crop px of the image, and depth."""
        x, y, z = unproject(x, y, z)
        offset = [x - PIVOT[0], y - PIVOT[1], z - PIVOT[2]]
        moved = [sum(turn[i, k] * offset[k] for k in range(3)) + PIVOT[i] + shift[i] for i in range(3)]
        x, y, z = (turns * m + (1 - turns) * p for m, p in zip(moved, (x, y, z), strict=True))
        y = y - breath
        scale = DISTANCE / (z + DISTANCE)
        return (x - CENTRE[0]) * scale + CENTRE[0], (y - CENTRE[1]) * scale + CENTRE[1], z

    def _draw(self, texture, px, py, pz, faces):
        """Warp a texture by a mesh: colours float32 [n, n, C] and coverage bool [n, n], at the oversampled size n."""
        n = self.size * OVERSAMPLE
        back = np.full((n, n, 2), -1.0, np.float32)
        depth = np.full((n, n), np.inf)
        _trace(px * self.scale, py * self.scale, pz, faces, n, back, depth)
        at = back * (TEXELS / 2.0) - 0.5
        colours = cv2.remap(texture, at[..., 0], at[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        return colours, np.isfinite(depth)

    def _plate(self, breath):
        """The clean plate with raised shoulders, at the oversampled size."""
        n = self.size * OVERSAMPLE
        y, x = (np.mgrid[0:n, 0:n] + 0.5) / self.scale
        y = y + breath * smoothstep((y - 125) / 60)
        at = [(v * TEXELS - 0.5).astype(np.float32) for v in (x, y)]
        return cv2.remap(self.portrait.plate, at[0], at[1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

    def frame(self, mouth, blink, brow, turn, shift, gaze, breath):
        """One frame, uint8 [size, size, 3].

        Args:
            mouth: dict with opening, spread, jaw, tongue, tuck (see `motion.Mouth`).
            blink: 0..1, eyelids closed.
            brow: 0..1, brows raised.
            turn: rotation matrix [3, 3] of the head.
            shift: [3] crop px.
            gaze: [2] degrees right and down, relative to the head.
            breath: rise of the shoulders in crop px.
        """
        image = self._plate(breath)
        lift = breath * self.breathes
        gaze_x, gaze_y = EYEBALL * np.sin(np.deg2rad(gaze))
        eyes = np.any(self.eye_boxes, 0)
        behind = self.z + np.where(eyes, 0.5, 4.0)
        px, py, pz = self.place(self.x + gaze_x * eyes, self.y + gaze_y * eyes, behind, self.turns, turn, shift, lift)
        under, covered = self._draw(self.interior(mouth), px, py, pz, self.openings[:-1, :-1])
        image = np.where(covered[..., None], under, image)
        dx, dy, dz = self.expression(mouth, blink, brow)
        px, py, pz = self.place(self.x + dx, self.y + dy, self.z + dz, self.turns, turn, shift, lift)
        head, covered = self._draw(self.portrait.head, px, py, pz, self.faces)
        alpha = np.where(covered, head[..., 3], 0)[..., None]
        image = alpha * head[..., :3] + (1 - alpha) * image
        image = cv2.resize(image.astype(np.float32), (self.size, self.size), interpolation=cv2.INTER_AREA)
        return np.clip(np.round(image * 255), 0, 255).astype(np.uint8)


class Interior:
    """The layer behind the openings: the eyeballs, and the inside of the mouth, which is generated for each frame."""

    def __init__(self, portrait):
        self.portrait = portrait
        mouth = portrait.mouth
        self.rows = slice(int((mouth.upper(mouth.left) - 6) * TEXELS), int((mouth.lower(118) + 20) * TEXELS))
        self.cols = slice(int((mouth.left - 5) * TEXELS), int((mouth.right + 5) * TEXELS))
        y, x = np.mgrid[self.rows, self.cols]
        self.x, self.y = (x + 0.5) / TEXELS, (y + 0.5) / TEXELS
        self.centre = (mouth.left + mouth.right) / 2
        self.floor = float(mouth.lower(self.centre))
        self.upper = portrait.teeth[self.rows, self.cols]
        # The lower teeth are the upper ones mirrored, smaller and darker.
        mirror = cv2.resize(self.upper[::-1], None, fx=0.8, fy=0.75, interpolation=cv2.INTER_AREA)
        self.mirror = mirror * np.array([0.80, 0.76, 0.74, 1.0], np.float32)
        self.mirror_top = np.argmax((mirror[..., 3] > 0.5).any(1)) / TEXELS

    def __call__(self, mouth):
        """Texture float32 [S, S, 3] for the mouth parameters, see `Renderer.frame`."""
        drop = JAW * mouth["jaw"]
        deep = np.clip((self.y - self.floor + 8) / 16, 0, 1)[..., None]
        patch = np.array([0.10, 0.03, 0.03]) + deep * np.array([0.10, 0.035, 0.035])
        top = self.floor - 3.5 + 0.6 * drop - 3.0 * mouth["tongue"]
        across = ((self.x - self.centre) / 13.5) ** 2
        inside = np.clip((1 - across - ((self.y - top - 9) / 9) ** 2) * 2.5, 0, 1)[..., None]
        light = 0.75 + 0.25 * np.clip((self.y - top) / 6, 0, 1)[..., None] - 0.12 * np.exp(-across * 40)[..., None]
        patch = (1 - inside) * patch + inside * light * np.array([0.60, 0.30, 0.29])
        down = (self.floor - 2.4 + drop - self.mirror_top) * TEXELS - self.rows.start
        shift = np.float32([[1, 0, 0.1 * patch.shape[1]], [0, 1, down]])
        lower = cv2.warpAffine(self.mirror, shift, patch.shape[1::-1])
        patch = (1 - lower[..., 3:]) * patch + lower[..., 3:] * lower[..., :3]
        patch = (1 - self.upper[..., 3:]) * patch + self.upper[..., 3:] * self.upper[..., :3] * 0.95
        texture = self.portrait.under.copy()
        # The lips cast a shadow on the teeth; closed lips leave only a soft dark line.
        shade = min(1.0, 0.5 + mouth["opening"] / 0.5) - 0.4 * max(0.0, -mouth["spread"])
        parted = min(1.0, mouth["opening"] / 0.15)
        patch = parted * patch * shade ** np.array([0.7, 1.15, 1.25]) + (1 - parted) * np.array([0.40, 0.17, 0.16])
        texture[self.rows, self.cols] = patch
        return texture
