"""Audio features and voice activity.

- `encoders`: the common interface of audio encoders; `load_encoder`.
- `phones`: the built-in encoder, a network that outputs phone posteriors (weights in `weights/`).
- `logmel`: log-mel spectra, as an encoder and as the input of `phones`.
- `ctc`: CTC speech recognisers from `transformers` as encoders.
- `voice_activity`: speech and silence per video frame.
- `prior`: how lips and jaw move with speech, learned from many people (weights in `weights/`).
- `sync`: at which shift of the audio a predicted motion fits the tracked one.
- `ridge`: ridge regression with leave-block-out predictions.

May import: core, media.
"""
