"""Displacement of the portrait's points by lips, jaw, brows and eyelids, before the head rotates; in crop px."""

import numpy as np
from scipy.interpolate import PchipInterpolator

OPENING = 12.5  # lip gap at an opening of 1
JAW = 6.5  # drop of the chin at a jaw drop of 1
CLOSED_AT = 0.32  # where the closed lips meet, as a fraction of the portrait's lip gap from the upper lip
CHIN = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288)
BROWS = ((70, 63, 105, 66, 107), (336, 296, 334, 293, 300))


def smoothstep(x):
    """Cubic interpolation from 0 at x = 0 to 1 at x = 1, constant outside."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


class Expression:
    """Displacement of fixed points as a function of the face's parameters.

    Args:
        portrait: the portrait.
        x, y, z: points, float arrays of equal shape, crop px.
    """

    def __init__(self, portrait, x, y, z):
        self.mouth = _MouthField(portrait, x, y, z)
        self.lids = [_LidField(eye, x, y, portrait.landmarks[168, 0]) for eye in portrait.eyes]
        self.brow = np.zeros(np.shape(x))
        for ids in BROWS:
            points = portrait.landmarks[list(ids), :2]
            across = np.exp(-(((x - points[:, 0].mean()) / 15) ** 4))
            self.brow -= 1.5 * across * np.exp(-(((y - points[:, 1].mean()) / 5.5) ** 2))

    def __call__(self, mouth, blink, brow):
        """Displacement of the points.

        Args:
            mouth: dict with opening, spread, jaw and tuck (see `motion.Mouth`).
            blink: 0..1, eyelids closed.
            brow: 0..1, brows raised.

        Returns:
            dx, dy, dz: arrays like x.
        """
        dx, dy, dz = self.mouth(mouth["opening"], mouth["spread"], mouth["jaw"], mouth["tuck"])
        for lid in self.lids:
            down, nearer = lid(blink)
            dy = dy + down
            dz = dz - nearer
        return dx, dy + brow * self.brow, dz


class _LidField:
    """An upper eyelid that slides over the eyeball: lashes and lid edge move rigidly, the fold above is compressed."""

    def __init__(self, eye, x, y, middle):
        upper, lower = eye.upper(x), eye.lower(x)
        self.gap = lower - upper
        above, below = np.maximum(upper - y, 0), np.maximum(y - lower, 0)
        side = np.clip((y - upper) / np.maximum(self.gap, 1e-6), 0, 1)
        inside = ((x > eye.left) & (x < eye.right)).astype(float)
        self.upper = inside * (1 - side) * (1 - smoothstep((above - 1.6) / 7.0))
        self.lower = inside * side * np.exp(-((below / 3.0) ** 2))
        out = eye.left if eye.left + eye.right < 2 * middle else eye.right  # the lashes beyond the outer corner
        self.tail = np.exp(-(((x - out) / 4.0) ** 2) - ((y - eye.upper(out) + 1.0) / 4.0) ** 2)

    def __call__(self, blink):
        down = blink * ((self.gap * 0.92 + 0.25) * self.upper - 0.08 * self.gap * self.lower + 2.8 * self.tail)
        return down, 0.5 * blink * self.upper


class _MouthField:
    """Opening and closing of the lips, spreading and rounding of their corners, and the jaw.

    Two surfaces, attached to the upper and the lower lip, which are joined beyond the corners of the mouth.
    """

    def __init__(self, portrait, x, y, z):
        mouth, marks = portrait.mouth, portrait.landmarks
        self.centre, self.half = (mouth.left + mouth.right) / 2, (mouth.right - mouth.left) / 2
        upper, lower = mouth.upper(x), mouth.lower(x)
        self.gap = lower - upper
        u = (x - self.centre) / self.half
        beyond = np.maximum(np.abs(u) - 1, 0) * self.half
        self.profile = np.clip(1 - u**2, 1e-9, 1)
        half_gap = self.gap / 2 + 0.35 * beyond + 0.02
        self.side = np.clip((y - (upper + lower) / 2) / (2 * half_gap) + 0.5, 0, 1)
        above, below = np.maximum(upper - y, 0), np.maximum(y - lower, 0)
        self.above, self.below = above, below
        self.hang_upper = np.exp(-above / 7.0) * (1 - smoothstep((above - 5) / 9))
        self.hang_lower = np.exp(-below / 8.0) * (1 - smoothstep((below - 10) / 14))
        chin = marks[list(CHIN)]
        under_chin = y - PchipInterpolator(chin[:, 0], chin[:, 1])(np.clip(x, chin[0, 0], chin[-1, 0]))
        hinge = marks[152, 2] + 36.0
        self.jaw = smoothstep((hinge - z) / 36.0) * (1 - smoothstep((under_chin - 1) / 15))
        self.jaw *= 1 - smoothstep((np.abs(x - marks[152, 0]) - 26) / 22)
        middle = (mouth.upper(mouth.left) + mouth.upper(mouth.right)) / 2 + 2
        vertical = np.where(y < middle, (y - middle) / 9.0, (y - middle) / 16.0)
        self.across = np.where(np.abs(u) <= 1, u, np.sign(u) * np.exp(-((beyond / 12) ** 2))) * np.exp(-(vertical**2))
        corner_y = np.where(u < 0, mouth.upper(mouth.left), mouth.upper(mouth.right))
        from_corner = ((np.abs(u) - 1) * self.half / 9) ** 2 + ((y - corner_y) / 9) ** 2
        self.corner = np.exp(-from_corner)
        self.lips = np.exp(-(((above + below) / 7) ** 2)) * smoothstep((1.25 - np.abs(u)) / 0.6)

    def __call__(self, opening, spread, jaw, tuck):
        rounded, wide = max(0.0, -spread), max(0.0, spread)
        gap = OPENING * opening * self.profile ** (0.62 - 0.1 * rounded + 0.15 * wide)
        share = 0.16 + 0.35 * tuck - 0.1 * rounded
        meet = CLOSED_AT + 0.4 * rounded
        upper = meet * self.gap - share * gap
        lower = (meet - 1) * self.gap + (1 - share) * gap
        fuller = 1.1 * rounded * smoothstep((1 - np.abs(1 - self.profile)) / 0.5)
        upper = upper * self.hang_upper - fuller * (self.above / 3.5) * np.exp(1 - self.above / 3.5)
        lower = lower * self.hang_lower + fuller * (self.below / 4.5) * np.exp(1 - self.below / 4.5)
        lower = lower + JAW * jaw * self.jaw * (1 - self.hang_lower)
        dy = (1 - self.side) * upper + self.side * lower
        dx = (-2.2 + 1.6 * wide - 6.5 * rounded - 2.2 * opening) * self.across
        dy = dy + (2.6 + 1.6 * jaw + 1.6 * rounded - 1.0 * wide) * self.corner
        return dx, dy, -3.0 * rounded * self.lips
