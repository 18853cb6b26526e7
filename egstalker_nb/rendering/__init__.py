"""A trained head as images: offline, live, from any side, and exported.

May import: core, media, face, speech, data, rasterizer, model, training (the run folder), and the configuration.
"""
