"""A prepared dataset on disk, and its frames as batches of tensors.

- `dataset`: `Dataset` and `load_dataset`, which read a dataset folder.
- `dataset_files`: what a dataset folder must hold, its format, and how earlier formats become this one.
- `camera_view`: how a camera that moves saw the scene in a frame: views, and the canvas that holds all of them.
- `conditions`: `Conditions`, the inputs from which a frame is rendered.
- `frame_loader`: `Frames`, which serves batches from the GPU, host memory or disk.

May import: core, media, face.
"""
