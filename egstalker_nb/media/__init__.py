"""Video, audio and images, as files and as arrays.

- `rates`: the frame rate and sample rate of the package.
- `container`: opening and decoding media files with PyAV, wherever FFmpeg fails.
- `limits`: of size, length and gaps, beyond which a media file is refused.
- `audio`: loading, saving and trimming audio; cutting audio features into windows.
- `feature_shapes`: naming the extractor that features of another shape come from.
- `downmix`: averaging several audio channels into one.
- `live_audio`: chunks of a live recording, resampled to 16 kHz mono.
- `tts`: speech synthesis, as a file or sentence by sentence; `tts_neural` (hibari, the extra `tts`) and `tts_programs`
  (espeak-ng, flite) speak a sentence, `tts_text` cuts a text into sentences, `tts_voice` is what they have in common.
- `video_reader`, `video_writer`: clips to RGB frames and back.
- `video_encoder`: RGB frames to H.264, in segments that are encoded side by side.
- `alpha_video`: RGBA frames to ProRes 4444 and VP9, with their alpha.
- `video_color`, `tone_map`: colour conversion of decoded frames; HDR and wide gamut to BT.709 SDR.
- `subtitles`: SRT, beside a file or from a text track.
- `image_io`: JPEG and PNG files.
- `synthetic`: marking rendered videos and images as synthetic.
- `player`: HTML players for notebooks.

May import: core.
"""
