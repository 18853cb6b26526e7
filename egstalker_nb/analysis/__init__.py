"""Analysis of runs: densification, gradients of loss terms, attention, comparison of settings, scores and cost.

The functions return tables and arrays; their figures are in `notebook`.
May import: every room but preparation and notebook.
"""
