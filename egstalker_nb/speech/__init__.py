"""From audio to what is said: log-mel spectra, phone posteriors, audio encoders, voice activity, ridge regression.

May import: core, media.
"""
