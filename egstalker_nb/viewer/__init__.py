"""A trained head in the browser: its Gaussians in the 3D viewer viser, moving with audio.

- `splat_view`: `view`, the viewer as an object: it starts and ends the server and shows itself in JupyterLab.
- `splat_panel`: the page: scene, controls, sound, and the loop that plays.
- `splat_frames`: the Gaussians of a frame as viser takes them, from a run or a PLY.
- `playback`: the clock of playing, pausing and seeking.
- `audio_sync`: HTML that keeps the sound in the browser at the frame that is shown.

May import: core, media, face, model, training, rendering.
"""
