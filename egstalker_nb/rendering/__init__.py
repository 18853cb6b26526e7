"""A trained head as images: videos, live frames, free viewpoints and exports.

- `render`: `render` (audio drives the head) and `replay` (the frames of its own clip), as MP4.
- `script`: what each frame of a video shows, from audio or from the clip.
- `renderer`: `Renderer`, which renders the frames of a script or of the clip.
- `backdrop`: what is behind head and torso: the clip's plate, a colour, a picture, a video, nothing.
- `framing`: the part of the picture that a video shows: an aspect ratio, the full frame of the source.
- `paste_back`: the rendered head in the frames of the video that its clip was cropped from.
- `split`: one video rendered on several workers of a Ray cluster.
- `motion`: head poses and blinks of a video: paths, another clip's motion, arrays.
- `streaming`: `stream`, frames from audio as it comes in.
- `live_motion`: the same for a stream, which has no known length.
- `export`: `export_frames` and `export_ply`, numbered files for other programs; `export_gaussians`, one file.
- `inspection`: renders, offsets and projections of single frames, as arrays for figures and panels.

May import: core, media, face, speech, metrics, data, rasterizer, model, training (the run folder only).
"""
