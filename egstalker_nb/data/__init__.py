"""A prepared dataset on disk, and its frames as batches of tensors.

- `dataset`: `Dataset` and `load_dataset`, which read a dataset folder.
- `conditions`: `Conditions`, the inputs from which a frame is rendered.
- `frame_loader`: `Frames`, which serves batches from the GPU, host memory or disk.

May import: core, media, face.
"""
