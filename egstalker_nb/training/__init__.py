"""Training: the loop and its step, losses, densification, pose refinement, and what a run folder keeps.

May import: core, media, face, speech, metrics, data, rasterizer, model, and the configuration.
"""
