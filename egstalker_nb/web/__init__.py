"""A trained head as one HTML file that runs in a browser: no server, no network.

- `export_web`: `export_web`, the file and what it costs in image quality; `read_web_head`, which tells such files.
- `distil`: the deformation as a sum over a few dozen bases, fitted to the trained network.
- `page_data`: the head's Gaussians, motion and torso as tensors and facts, and how they are packed into the page.
- `audio_tensors`: what the page needs to predict the mouth from audio.
- `page.html`: the page without a head, built from the TypeScript in `web/` by `make web`.

May import: core, media, face, speech, metrics, data, model, training, rendering.
"""
