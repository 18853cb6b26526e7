"""Metrics that losses, preparation and evaluation share.

- `image_metrics`: PSNR, SSIM, the error at the edge of the head, and a differentiable Gaussian blur.
- `landmark_metrics`: landmark distance, mouth and eye opening, jitter, correlation and lag.

May import: core, face.
"""
