"""Scores of a trained head, as numbers and tables; figures of them are in the notebook room.

- `evaluate`: `egs.evaluate`: image quality, landmark distance and mouth opening against the clip, saved
  in the run folder.
- `lip_sync`: `egs.sync_score`: how well the mouth follows audio, that of the clip or of another speaker.
- `score_videos`: `egs.score`: any video against its reference, with the metrics of papers.
- `pair_metrics`: these metrics on pairs of frames, and what is missing for those that need weights.
- `face_crops`: the parts of a frame that are compared, and that SyncNet sees.

May import: core, media, face, speech, metrics, data, training (the run folder), rendering.
"""
