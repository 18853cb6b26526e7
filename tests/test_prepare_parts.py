"""The parts of data preparation on made-up inputs: crop, masks, plate, measures and every warning."""
import copy

import cv2
import numpy as np
import pytest

from egstalker_nb.face import landmarks, pose_math
from egstalker_nb.preparation import crop, masks, people, plate, quality, scan, shots
from egstalker_nb.preparation.landmark_tracking import tracking_inputs
from egstalker_nb.preparation.source import UnusableClipError
from egstalker_nb.preparation.steps import Workspace


def drawn_face(size=256, centre=(128, 120), height=110, mouth=0.0):
    """Landmarks [478, 3] px of a drawn frontal face: an oval with jaw, eyes and lips in their places."""
    rng = np.random.default_rng(3)
    points = np.zeros((478, 3), np.float32)
    points[:, :2] = rng.uniform(-0.3, 0.3, (478, 2))
    angles = np.linspace(0, 2 * np.pi, len(landmarks.OVAL), endpoint=False)
    points[landmarks.OVAL, :2] = np.stack([0.38 * np.sin(angles), -0.5 * np.cos(angles)], axis=1)
    for side, (corners, lids) in zip((-1, 1), landmarks.EYES):
        points[list(corners), :2] = [(side * 0.24, -0.1), (side * 0.08, -0.1)]
        for upper, lower in lids:
            points[[upper, lower], :2] = [(side * 0.16, -0.125), (side * 0.16, -0.075)]
    points[landmarks.LIPS, :2] = rng.uniform(-1, 1, (len(landmarks.LIPS), 2)) * [0.15, 0.06] + [0, 0.25]
    points[[13, 14], :2] = [(0, 0.25 - mouth / 2), (0, 0.25 + mouth / 2)]
    points[:, :2] = points[:, :2] * height + centre
    return points


# ---- crop

def test_crop_holds_head_hair_and_shoulders_inside_the_image():
    points = np.stack([drawn_face(centre=(900 + 4 * i, 400), height=200) for i in range(20)])
    x0, y0, side = crop.choose_crop(points, np.ones(20, bool), 1920, 1080)
    assert 0 <= x0 and x0 + side <= 1920 and 0 <= y0 and y0 + side <= 1080
    assert y0 <= points[..., 1].min() - 0.4 * 200 and y0 + side >= points[..., 1].max() + 0.3 * 200
    assert x0 <= points[..., 0].min() - 0.4 * 200 and x0 + side >= points[..., 0].max() + 0.4 * 200
    assert side < 600


def test_head_crop_of_a_square_source_is_kept_whole():
    points = drawn_face(256, (128, 120), 130)[None]
    assert crop.choose_crop(points, np.ones(1, bool), 256, 256) == (0, 0, 256)


def test_crop_of_a_close_up_stays_in_the_image():
    points = drawn_face(centre=(600, 360), height=600)[None]
    x0, y0, side = crop.choose_crop(points, np.ones(1, bool), 1280, 720)
    assert (y0, side) == (0, 720) and 0 <= x0 <= 1280 - 720


def test_a_head_of_a_few_px_is_refused():
    for height in (0, 12):
        with pytest.raises(UnusableClipError, match="at least 32 px"):
            crop.choose_crop(drawn_face(centre=(100, 100), height=height)[None], np.ones(1, bool), 640, 480)


def test_landmarks_follow_the_crop():
    points = np.array([[[110.0, 60.0, 5.0]]], np.float32)
    np.testing.assert_allclose(crop.to_crop(points, (100, 40, 200), 100), [[[5, 10, 2.5]]])


# ---- landmarks

def test_blink_is_scaled_to_the_clip_and_a_squint_is_no_blink():
    clip = np.stack([drawn_face() for _ in range(10)])
    for _, lids in landmarks.EYES:
        for upper, lower in lids:
            clip[5, upper, 1] = clip[5, lower, 1] - 0.2
            clip[7, upper, 1] += 1.5
    blink = landmarks.blink_curve(clip, np.ones(10, bool))
    assert blink[5] == pytest.approx(1) and blink[0] < 0.05 and 0.2 < blink[7] < 0.6
    squint = landmarks.blink_curve(clip[6:], np.ones(4, bool))
    assert squint.max() < 0.6


def test_gaps_are_interpolated_and_ends_held():
    values = np.array([9.0, 1, 9, 9, 4, 9], np.float32)[:, None]
    found = np.array([0, 1, 0, 0, 1, 0], bool)
    np.testing.assert_allclose(landmarks.fill_gaps(values, found)[:, 0], [1, 1, 2, 3, 4, 4])


def test_rectangles_hold_their_landmarks_and_stay_inside():
    points = np.stack([drawn_face(), drawn_face(centre=(5, 250))])
    boxes = landmarks.rectangles(points, landmarks.LIPS, 0.25, 256)
    low, high = points[0, landmarks.LIPS, :2].min(0), points[0, landmarks.LIPS, :2].max(0)
    assert (boxes[0, :2] < low).all() and (boxes[0, 2:] > high).all()
    assert (boxes >= 0).all() and (boxes <= 256).all() and (boxes[:, 2:] - boxes[:, :2] >= 4).all()


# ---- masks

@pytest.fixture(scope="module")
def portrait():
    """A drawn person, her hair hanging to the shoulders: image, person mask [256, 256], landmarks, hair mask."""
    size, points = 256, drawn_face(256, (128, 110), 110)
    image = np.full((size, size, 3), (90, 140, 200), np.uint8)
    hair, person = np.zeros((2, size, size), np.uint8)
    for target, colour in ((image, (110, 70, 30)), (hair, 255), (person, 255)):
        cv2.ellipse(target, (128, 105), (62, 75), 0, 0, 360, colour, -1)
        cv2.rectangle(target, (66, 105), (95, 200), colour, -1)
    for target, colour in ((image, (215, 165, 140)), (person, 255), (hair, 0)):
        cv2.rectangle(target, (105, 140), (151, 200), colour, -1)
        cv2.ellipse(target, (128, 110), (42, 55), 0, 0, 360, colour, -1)
    for target, colour in ((image, (30, 40, 110)), (person, 255), (hair, 0)):
        cv2.ellipse(target, (128, 256), (110, 62), 0, 180, 360, colour, -1)
        # a collar that stands up beside the cheek, higher than the border leaves the jaw
        cv2.rectangle(target, (174, 128), (190, 230), colour, -1)
    noise = np.random.default_rng(0).normal(0, 4, image.shape)
    return (image + noise).clip(0, 255).astype(np.uint8), person.astype(np.float32) / 255, points, hair > 0


@pytest.fixture(scope="module")
def portrait_mask(portrait):
    image, person, points, _ = portrait
    points = points[:, :2].astype(float)
    return masks.segment(image, person, points, masks.ColourModel([masks.confident_regions(image, person, points)]))


def test_masks_sum_to_255_and_are_soft(portrait_mask):
    assert (portrait_mask.astype(int).sum(axis=2) == 255).all()
    assert ((portrait_mask[..., 0] > 20) & (portrait_mask[..., 0] < 235)).mean() > 0.005


def test_face_and_hanging_hair_are_head_and_the_rest_of_the_person_torso(portrait, portrait_mask):
    hair = portrait[3]
    assert portrait_mask[110, 128, 0] > 250 and portrait_mask[45, 128, 0] > 250
    hanging = np.zeros_like(hair)
    hanging[175:190, 70:91] = hair[175:190, 70:91]
    assert hanging.sum() > 250 and portrait_mask[hanging, 0].mean() > 200
    assert portrait_mask[185, 128, 1] > 240 and portrait_mask[240, 128, 1] > 240 and portrait_mask[235, 60, 1] > 240
    assert portrait_mask[20, 20, 2] > 250 and portrait_mask[150, 230, 2] > 250


def test_cloth_that_reaches_up_is_torso(portrait_mask):
    assert portrait_mask[136:142, 178:187, 1].min() > 200


def test_border_follows_the_chin(portrait_mask):
    column = portrait_mask[:, 128, 0].astype(int)
    assert column[160] > 240 and column[176] < 20


def test_a_face_outside_the_square_is_no_error(portrait):
    image, person, points, _ = portrait
    person = person.copy()
    person[:20, :20] = 1
    face = masks.fill_polygon(points[landmarks.OVAL, :2] + 900, 256)
    assert masks.refine_person(image, person, face).shape == (256, 256)


def test_a_second_person_is_background(portrait):
    image, person, points, _ = portrait
    person = person.copy()
    person[20:60, 220:250] = 1
    filled = masks.refine_person(image, person, masks.fill_polygon(points[landmarks.OVAL, :2], 256))
    assert filled[40, 235] < 0.1 and filled[110, 128] > 0.95


# ---- plate

def test_plate_shows_what_was_uncovered_and_fills_the_rest():
    rng = np.random.default_rng(0)
    truth = np.full((64, 64, 3), 120, np.uint8)
    truth[:, :32] = (200, 40, 90)
    total = plate.PlateSum(64)
    for i in range(20):
        mask = np.zeros((64, 64, 3), np.uint8)
        mask[..., 2] = 255
        # the person walks to and fro, so that only the middle is never seen
        mask[16:48, 20 + i % 4:44 + i % 4] = (255, 0, 0)
        image = (truth + rng.normal(0, 3, truth.shape)).clip(0, 255).astype(np.uint8)
        image[mask[..., 0] > 0] = 255
        total.add(image, mask)
    result, uncovered = plate.clean_plate([total.sums()])
    assert np.abs(result[:, :18].astype(int) - truth[:, :18]).max() <= 3
    hidden = 32 * 21 / 64**2
    assert 1 - hidden - 0.1 < uncovered <= 1 - hidden + 0.01
    # filled with the surroundings' colours, not with the person's white
    assert result[32, 32].max() < 215 and result[32, 32].min() > 30


def test_plate_memory_does_not_grow():
    total = plate.PlateSum(64)
    mask = np.dstack([np.zeros((64, 64, 2), np.uint8), np.full((64, 64), 255, np.uint8)])
    before = sum(v.nbytes for v in vars(total).values() if isinstance(v, np.ndarray))
    for _ in range(50):
        total.add(np.zeros((64, 64, 3), np.uint8), mask)
    assert sum(v.nbytes for v in vars(total).values() if isinstance(v, np.ndarray)) == before


# ---- which face, cuts, audio

def boxes_of(*faces):
    result = np.full((scan.MAX_FACES, 5), np.nan, np.float32)
    result[:len(faces)] = faces or np.zeros((0, 5))
    return result


def square(x, side=100, y=60):
    return x, y, x + side, y + side, 0.9


def test_the_large_face_is_followed_and_the_other_counted():
    clip = np.stack([boxes_of(square(300, 40), square(50 + i, 120)) for i in range(10)])
    main = people.choose_person(people.find_people(clip), "largest")
    np.testing.assert_allclose(main[:, 0], 50 + np.arange(10))
    assert (people.count_other_faces(clip, main) == 1).all()
    [alone] = people.find_people(clip[:, 1:2])
    assert (people.count_other_faces(clip[:, 1:2], alone) == 0).all() and not np.isnan(alone).any()


@pytest.mark.parametrize("order", [1, -1])
def test_left_and_right_are_as_the_viewer_sees_them(order):
    """In whatever order the detector names them, and however large they are; a small face far behind is not meant."""
    clip = np.stack([boxes_of(*[square(200 + i % 3, 100), square(420, 130), square(5, 12)][::order])
                     for i in range(20)])
    found = people.find_people(clip)
    assert len(found) == 3
    assert people.choose_person(found, "left")[0, 0] == 200 and people.choose_person(found, "right")[0, 0] == 420
    assert people.choose_person(found, "largest")[0, 0] == 420


def test_others_are_counted_also_where_the_chosen_one_is_away():
    """Else the tracker would take another person for the one that is out of view."""
    clip = np.stack([boxes_of(square(100), square(400))] * 10 + [boxes_of(square(400))] * 10)
    left = people.choose_person(people.find_people(clip), "left")
    assert (people.count_other_faces(clip, left) == 1).all()
    seen = scan.Scan(clip, np.arange(100) // 5, thumbs(*[9] * 100), 640, 480)
    boxes, region, faces = tracking_inputs(seen, left, people.count_other_faces(clip, left), range(60, 100))
    assert faces == 2 and (boxes[:, 0] == 100).all(), "it is looked for where it was last"


def test_the_largest_is_who_is_large_for_long_also_with_gaps():
    clip = [boxes_of(square(400, 90)) if 60 <= m < 130 else boxes_of(square(100, 110)) if m % 40 < 25 else boxes_of()
            for m in range(300)]
    largest = people.choose_person(people.find_people(np.stack(clip)), "largest")
    assert np.nanmedian(largest[:, 0]) == 100


def test_who_was_away_is_recognised_and_never_replaced_by_another():
    clip = [boxes_of(square(100), square(400)) for _ in range(15)]
    clip += [boxes_of(square(400)) for _ in range(30)]       # the left one is away, longer than a track lives
    clip += [boxes_of(square(400), square(110)) for _ in range(15)]
    found = people.find_people(np.stack(clip))
    assert len(found) == 2
    left = people.choose_person(found, "left")
    assert np.isnan(left[15:45, 0]).all() and (left[:15, 0] == 100).all() and (left[45:, 0] == 110).all()


# ---- shots

def thumbs(*colours):
    """One thumbnail for each grey value, [N, 16, 16, 3] uint8."""
    return np.broadcast_to(np.uint8(colours)[:, None, None, None], (len(colours), 16, 16, 3))


def test_cuts_are_found_and_movement_and_flashes_are_none():
    values = np.full(80, 100)
    values[20:30] += np.arange(10) * 6        # a lamp that brightens
    values[30:] += 54
    values[40:] -= 90                         # a cut
    values[60:62] = 255                       # a flash
    clip = thumbs(*values).copy()
    clip[70, :8], clip[71, 8:] = 250, 250     # one that a rolling shutter spreads over two frames
    np.testing.assert_array_equal(shots.find_cuts(clip), [40])
    assert len(shots.find_cuts(thumbs(5))) == 0


@pytest.mark.parametrize("cuts, seen, expected", [
    ([], [(0, 100)], (0, 100)),
    ([30], [(0, 100)], (30, 100)),            # the longest
    ([30], [(0, 30)], (0, 30)),               # that shows a face
    ([10, 50, 90], [(0, 100)], (10, 50)),     # of two equally long the first
    ([30], [], (30, 100)),
])
def test_the_longest_shot_that_shows_a_face_is_chosen(cuts, seen, expected):
    landmarks = np.zeros(100, bool)
    for first, last in seen:
        landmarks[first:last] = True
    found = shots.find_shots(np.array(cuts, int), 100)
    assert [i for shot in found for i in shot] == list(range(100))
    assert shots.choose_shot(found, landmarks, "longest") == range(*expected)
    assert shots.choose_shot(found, landmarks, "all") == range(100)


@pytest.mark.parametrize("first, last", [(0, 50), (1, 50), (7, 23), (5, 6), (6, 8), (49, 50)])
def test_a_part_of_a_scan_takes_faces_from_its_own_frames(first, last):
    boxes = np.stack([boxes_of(square(10 * m)) for m in range(10)])
    whole = scan.Scan(boxes, np.arange(50) // 5, thumbs(*range(50)), 640, 480)
    part = whole.part(first, last)
    assert part.num_frames == len(part.rows) == last - first and (part.thumbs[:, 0, 0, 0] == range(first, last)).all()
    own = [m for m in range(10) if first <= 5 * m < last]
    shown = {int(x) // 10 for x in part.boxes[part.rows, 0, 0]}
    assert shown == set(own) if own else len(shown) == 1


def test_angles_have_the_stated_signs():
    w2c = np.tile(np.eye(4), (4, 1, 1))
    c, s = np.cos(0.2), np.sin(0.2)
    w2c[1, :3, :3] = [[c, 0, -s], [0, 1, 0], [s, 0, c]]   # the nose, -z, goes to +x: the image's right
    w2c[2, :3, :3] = [[1, 0, 0], [0, c, -s], [0, s, c]]   # the nose goes to +y: down
    w2c[3, :3, :3] = [[c, -s, 0], [s, c, 0], [0, 0, 1]]   # the top of the head, -y, goes to +x
    np.testing.assert_allclose(pose_math.euler(w2c), np.diag([0.0] + [np.degrees(0.2)] * 3)[:, 1:], atol=1e-6)


def test_audio_levels_tell_speech_from_silence():
    rng = np.random.default_rng(0)
    speech = rng.normal(0, 0.1, 32000).astype(np.float32)
    speech[16000:] *= 1e-4
    found = quality.audio_levels(speech)
    assert found["level_dbfs"] == pytest.approx(-20, abs=1) and found["silence_share"] == pytest.approx(0.5, abs=0.02)
    assert quality.audio_levels(np.zeros(16000, np.float32))["silence_share"] == 1


@pytest.mark.parametrize("side, size", [(40, 64), (64, 64), (79, 64), (500, 496), (720, 720), (1079, 1024)])
def test_the_native_size_is_the_crops_own_where_prepare_takes_it(side, size):
    assert crop.native_size((0, 0, side)) == size


# ---- warnings

GOOD = {
    "num_frames": 500, "seconds": 20.0, "source": {"width": 1280, "height": 720, "notes": []},
    "frames_with_face": 500, "reprojection_px": {"rms": 1.0, "mean": 0.9, "p95": 1.4}, "pose_jitter_deg": 0.3,
    "head_motion": {"yaw_deg": [-10, 12], "pitch_deg": [-5, 5], "roll_deg": [-4, 4], "x": [0, 0], "y": [0, 0],
                    "depth": [12, 12]},
    "face_height_px": 280.0, "frame_px": 560, "crop_px": 600,
    "face_height_source_px": 300.0, "face_outside_share": 0.0, "uncovered_background": 0.4,
    "person_share": 0.5, "mouth_movement": {"mean": 0.04, "range": 0.08}, "blinks": 5,
    "sound": {"level_dbfs": -20.0, "silence_share": 0.2, "moved_s": 0.0, "notes": []}, "face": "largest",
    "other_faces_share": 0.0, "cuts": [], "black_frames": 0,
    "camera": {"still": True, "measured_share": 1.0, "corners_moved_px": 0.2, "zoom": [1.0, 1.0],
               "roll_deg": [0.0, 0.0], "exposure": [1.0, 1.0], "canvas_margin_px": 0, "cut": False},
    "account": {"video_frames": 500, "video_fps": 25.0, "frames": 500, "kept": 500, "used": [0, 500],
                "missing": {"could not be decoded": 0, "in another shot": 0}, "other_shots": []},
}


def test_a_good_clip_has_no_warnings():
    assert quality.find_problems(GOOD) == []


@pytest.mark.parametrize("path, value, word", [
    (("seconds",), 2.0, "lasts only"),
    (("frames_with_face",), 400, "No face was found in 20%"),
    (("face_height_source_px",), 60.0, "60 px"),
    (("face_height_source_px",), 120.0, "enlarged 2.3"),
    (("frame_px",), 768, "crop has 600 px"),
    (("face_outside_share",), 0.3, "cut by the border"),
    (("other_faces_share",), 0.5, "More than one face"),
    (("head_motion", "yaw_deg"), [30, 50], "from the side"),
    (("head_motion", "yaw_deg"), [-20, 60], "60 degrees"),
    (("uncovered_background",), 0.01, "background"),
    (("camera", "cut"), True, "camera moves so far"),
    (("source", "notes"), ["cut off"], "damaged"),
    (("cuts",), [100], "4.0 s"),
    (("account", "missing", "could not be decoded"), 30, "30 of 500 frames"),
    (("account", "other_shots"), [[500, 600]], "20.0 to 24.0 s"),
    (("sound", "notes"), ["the second track was taken"], "second track"),
    (("black_frames",), 12, "12 frames are black"),
    (("sound", "level_dbfs"), -70.0, "silent"),
    (("sound", "silence_share"), 0.8, "80%"),
    (("sound", "moved_s"), 0.08, "80 ms late"),
    (("mouth_movement", "range"), 0.001, "mouth hardly moves"),
    (("reprojection_px", "rms"), 4.0, "pose fits badly"),
])
def test_each_fault_gives_its_warning_alone(path, value, word):
    report = copy.deepcopy(GOOD)
    place = report
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    problems = quality.find_problems(report)
    assert len(problems) == 1 and word in problems[0]


# ---- steps

def test_a_finished_step_is_not_done_again_unless_its_settings_change(tmp_path):
    done = []

    def run(first, second):
        work = Workspace(tmp_path)
        work.run("a", lambda step: done.append("a"), {"x": first})
        work.run("b", lambda step: done.append("b"), {"y": second}, needs=["a"], clears=["pictures"])

    run(1, 1)
    (tmp_path / "pictures" / "0.png").write_bytes(b"old")
    run(1, 1)
    assert done == ["a", "b"] and (tmp_path / "pictures" / "0.png").is_file()
    run(1, 2)
    assert done == ["a", "b", "b"] and not (tmp_path / "pictures" / "0.png").exists()
    run(2, 2)
    assert done == ["a", "b", "b", "a", "b"]
