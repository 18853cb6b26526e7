"""Video, audio and images as files and as arrays: reading, writing, resampling, colour, speech synthesis.

May import: core.
"""
