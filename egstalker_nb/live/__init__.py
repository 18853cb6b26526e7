"""A trained head that speaks as one speaks to it: on a page of its own and in JupyterLab, 25 frames a second.

- `live_session`: `Live`, the whole of it as an object: say, play, feed, stop, close.
- `live_head`: a run that draws one frame after another.
- `idle_motion`: how it moves while it speaks and while it rests.
- `soundtrack`: what it says: utterances, a microphone, silence.
- `pcm`: raw audio that comes in in pieces.
- `performer`: the time line, and the frames that are left out.
- `audience`: the listeners, and what each of them gets.
- `web_app`: the page and the requests; its assets lie beside it.
- `access`: the token, the origin, and the size of requests.

May import: core, media, rendering, training.
"""
