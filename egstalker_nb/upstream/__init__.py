"""What people bring from EGSTalker and its relatives (AD-NeRF, ER-NeRF, GaussianTalker), and what goes back to them.

May import: core, the configuration, media, face, speech, data, rasterizer, model, preparation, training.
"""
