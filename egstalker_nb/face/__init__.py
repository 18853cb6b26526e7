"""The face as landmarks: which of the 478 points is what, regions, expression, head rotations, the landmark network.

May import: core.
"""
