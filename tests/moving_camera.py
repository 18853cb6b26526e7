"""Made-up scenes seen by a camera that moves as it is told to: the truth is known."""
import shutil

import cv2
import numpy as np

from egstalker_nb.data.camera_view import canvas_margin, pixels, view_matrix
from egstalker_nb.media.image_io import write_jpeg, write_png
from egstalker_nb.preparation.camera import solve_camera, track_camera
from egstalker_nb.preparation.parallel import WorkerPool
from egstalker_nb.preparation.steps import Step, load_chunks

SCENE = 3  # side of the scene, in sides of a frame


def textured(size, seed=0):
    """A scene [3 S, 3 S, 3] float32 0...255 with details of several sizes."""
    rng, side = np.random.default_rng(seed), SCENE * size
    scene = np.full((side, side, 3), 120, np.float32)
    for cells in (12, 40, 90):
        scene += cv2.resize(rng.normal(0, 14, (cells, cells, 3)).astype(np.float32), (side, side),
                            interpolation=cv2.INTER_CUBIC)
    return scene.clip(20, 230)


def seen(scene, size, view, gains=(0, 0, 0)):
    """What a frame [S, S, 3] uint8 shows of a scene in whose middle the reference view is."""
    middle = pixels(size, (len(scene) - size) // 2)
    px = middle @ np.linalg.inv(view_matrix(np.asarray(view))) @ np.linalg.inv(pixels(size))
    frame = cv2.warpAffine(scene, px[:2], (size, size), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return (frame * np.exp(gains)).round().clip(0, 255).astype(np.uint8)


def person(image, number, brightness=1.0):
    """Put a nodding person into a frame, in place; returns the masks [S, S, 3] uint8."""
    size, nod = len(image), 0.015 * np.sin(number / 3)
    head, torso = np.zeros((2, size, size), np.uint8)
    cv2.ellipse(torso, (size // 2, size), (size * 2 // 5, size // 3), 0, 0, 360, 255, -1)
    cv2.ellipse(head, (int(size * (0.5 + nod)), int(size * (0.45 + nod))), (size // 5, size // 4), 0, 0, 360, 255, -1)
    torso[head > 0] = 0
    image[torso > 0] = 40
    image[head > 0] = np.clip(brightness * np.array([180, 140, 120]), 0, 255)
    return np.dstack([head, torso, 255 - head - torso])


def write_clip(root, scene, size, views, gains=None, face_too=True):
    """Frames and masks of a dataset folder."""
    (root / "frames").mkdir(parents=True)
    (root / "masks").mkdir()
    gains = np.zeros((len(views), 3)) if gains is None else gains
    for i, (view, gain) in enumerate(zip(views, gains)):
        image = seen(scene, size, view, gain)
        mask = person(image, i, np.exp(gain).mean() if face_too else 1.0)
        write_jpeg(root / "frames" / f"{i:06d}.jpg", image)
        write_png(root / "masks" / f"{i:06d}.png", mask)


def measured(root, size, count):
    """The `CameraMotion` of frames and masks in a folder."""
    step = Step(root / "step", "key")
    step.folder.mkdir(exist_ok=True)
    with WorkerPool(count) as pool:
        track_camera(step, root, count, pool)
    return solve_camera(root, load_chunks(step), size, count)


def corner_error(found, true, size):
    """How far the corners of frames are from where they should be against the first frame, px: [N]; views [N, 4]."""
    corners = np.array([[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]], float).T
    relative = view_matrix(found) @ np.linalg.inv(view_matrix(found[0])) - (
        view_matrix(true) @ np.linalg.inv(view_matrix(true[0])))
    return np.linalg.norm((relative @ corners)[:, :2], axis=1).max(1) * size / 2


def make_moving_dataset(still, folder):
    """The clip of a dataset, seen by a camera that zooms, pans, and becomes brighter, in a new folder."""
    root = shutil.copytree(still.root, folder)
    size, count = still.size, len(still)
    time = np.linspace(-1, 1, count)
    views = np.stack([0.15 * time, -0.1 * time, 0.12 * time, 0 * time], 1)
    moves = np.concatenate([views, 0.1 * time[:, None].repeat(3, 1)], 1).astype(np.float32)
    best = [cv2.IMWRITE_JPEG_QUALITY, 98]
    for i in range(count):
        px = (pixels(size) @ view_matrix(views[i]) @ np.linalg.inv(pixels(size)))[:2]
        for folder, suffix in (("frames", "jpg"), ("masks", "png")):
            path = str(root / folder / f"{i:06d}.{suffix}")
            image = cv2.warpAffine(cv2.imread(path), px, (size, size), borderMode=cv2.BORDER_REPLICATE)
            if folder == "frames":
                image = (image * np.exp(moves[i, 4])).round().clip(0, 255).astype(np.uint8)
            cv2.imwrite(path, image, best)
    margin, _ = canvas_margin(moves[:, :4], size)
    canvas = cv2.copyMakeBorder(cv2.imread(str(root / "background.png")), *4 * (margin,), cv2.BORDER_REPLICATE)
    cv2.imwrite(str(root / "background.png"), canvas)
    w2c, lens = still.w2c.copy(), 2 * still.focal / size
    place = np.concatenate([lens * w2c[:, :2, 3] / w2c[:, 2:3, 3], np.ones((count, 1))], 1)
    place = (view_matrix(views) @ place[..., None])[:, :2, 0]
    w2c[:, 2, 3] /= np.exp(views[:, 2])  # as tracking sees it: a zoom is taken for depth
    w2c[:, :2, 3] = place * w2c[:, 2:3, 3] / lens
    with np.load(root / "tracking.npz") as file:
        np.savez(root / "tracking.npz", **{**file, "w2c": w2c, "camera": moves})
    return root


def outside(torso, ds, i):
    """Mean absolute error where the head is not, in the exposure of the frame."""
    image = (torso(torso.codes[i:i + 1])[0].cpu().numpy() * ds.gains[i]).clip(0, 1)
    return (np.abs(image - ds.frame(i) / 255) * (ds.mask(i)[..., :1] < 5)).mean()
