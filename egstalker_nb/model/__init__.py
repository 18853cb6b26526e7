"""The talking head as a torch module, without its training.

- `head`: `Head`, all of it, and how it renders frames.
- `gaussians`, `gaussian_files`, `ply`: the canonical Gaussians, and their form in files (SPZ and PLY).
- `deformation`: the network that deforms them: tri-plane, tokens, ESAA, five heads.
- `attributes`: opacity and colour of each Gaussian, its own or predicted by the tri-plane.
- `mouth`: the shape model of the mouth, and its prediction from audio.
- `audio_link`: from audio features to mouth coefficients, through the speaker prior or directly.
- `audio_windows`: windows of audio features in place of mouth coefficients, as upstream.
- `torso`: the layer behind the splats.

May import: core, face, speech, data, rasterizer, and the configuration.
"""
