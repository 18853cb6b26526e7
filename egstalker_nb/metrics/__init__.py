"""Metrics that losses, preparation and evaluation share.

- `image_metrics`: PSNR, SSIM, the error at the edge of the head, and a differentiable Gaussian blur.
- `landmark_metrics`: landmark distance, mouth and eye opening, jitter, correlation and lag.
- `action_units`: errors of the upper and lower face, from landmarks or OpenFace's CSVs.
- `perceptual`: LPIPS on AlexNet or VGG16.
- `identity`: cosine of face descriptors (SFace).
- `syncnet`: SyncNet with LSE-C and LSE-D.
- `weights`: the files of weights that these need: their names, where to get them.

May import: core, face.
"""
