"""Face landmarks and what is measured on them.

- `landmarks`: indices into MediaPipe's 478 landmarks, blink curve, rectangles around mouth and eyes.
- `regions`: parts of the head (lips, eyes, nose, ...) for points in 3D.
- `expression`: landmark motion relative to the rigid head; features of upper and lower face.
- `pose_math`: Euler angles, rotation vectors and projection.
- `nets`: loading MediaPipe's networks.
- `tracker`: the landmark tracker.

May import: core.
"""
