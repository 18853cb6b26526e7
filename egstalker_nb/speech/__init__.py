"""Audio features and voice activity.

- `encoders`: the common interface of audio encoders; `load_encoder`.
- `phones`: the built-in encoder, a network that outputs phone posteriors (weights in `weights/`).
- `logmel`: log-mel spectra, as an encoder and as the input of `phones`.
- `ctc`: CTC speech recognisers from `transformers` as encoders.
- `voice_activity`: speech and silence per video frame.
- `ridge`: ridge regression with leave-block-out predictions.

May import: core, media.
"""
