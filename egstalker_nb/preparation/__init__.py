"""From a talking-head video to a dataset folder. `egs.prepare` is `pipeline.prepare`.

- `pipeline`: `prepare`: its arguments, and what becomes of errors.
- `folder`: the folder that it writes to: whether it may, its lock, and what becomes of it after an error.
- `build`: the steps in order, from the video to `dataset.json`.
- `steps`: steps that run once, keep their partial results and continue after an interruption.
- `results`: what a step leaves, and whether it is whole.
- `parallel`: chunks of frames in worker processes.
- `scan`: first pass over the video: face detections, thumbnails, damage.
- `shots`: cuts, and the shot that becomes the dataset.
- `people`, `speaking`: the persons in view, the one to use, and which of them speaks.
- `source`: the video file, which must not change meanwhile, and the frames of that shot.
- `landmark_tracking`: second pass: 478 landmarks in every frame.
- `crop`: the square around the head.
- `pose`, `bundle`: head shape and camera poses, by bundle adjustment.
- `extract`, `masks`: third pass: cropped frames, with masks of head, torso and background.
- `registration`: the similarity between the backgrounds of two frames.
- `camera`: how the camera moved and how its exposure changed, from the background of the frames.
- `plate`: the clean background.
- `offset`: the offset between audio and lips.
- `quality`, `account`, `overlay`: the report: measurements and warnings, frame accounting, images.

May import: core, media, face, speech, metrics, data. Nothing is imported here, since worker processes import some of
these modules and need no torch.
"""
