"""The talking head: canonical Gaussians, the deformation network, the mouth's shape model, the torso layer.

May import: core, face, speech, rasterizer, and the configuration.
"""
