"""Analysis of runs; the functions return tables and arrays, their figures are in `notebook`.

- `growth`: densification of a run, and what other thresholds would have done.
- `collapse`: a deliberately induced opacity collapse.
- `attribution`: loss terms per pixel and their gradients, attention of the Gaussians to the tokens.
- `audio_curves`: the predicted mouth, also by sound, and attention over the time of driving audio.
- `mouth_prediction`: what the speaker prior predicts for a clip, and what the person's map adds.
- `comparison`: `egs.compare`: several runs on one dataset.
- `setting_effects`: presets, and the settings in which runs differ.
- `ablation`: what each change against upstream buys.
- `cost`: quality against cost, the time to reach a PSNR.
- `run_index`: the run folders below some folders.
- `frame_cache`: the same frame of several runs.

May import: every room but preparation and notebook.
"""
