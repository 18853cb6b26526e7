"""HTML of a notebook without scripts, event handlers, and anything that a browser would fetch from a network.

A notebook may be a stranger's, and its outputs and its prose may hold any HTML.
"""
from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

#: text, tables, images, players, folded parts
TAGS = frozenset("""
    a abbr audio b blockquote br caption code col colgroup dd del details div dl dt em figcaption figure h1 h2 h3 h4
    h5 h6 hr i img input ins kbd li mark ol p pre progress s samp small source span strong sub summary sup table tbody
    td tfoot th thead tr tt u ul var video
""".split())
#: formulas
MATHML = frozenset("""
    math menclose merror mfenced mfrac mi mmultiscripts mn mo mover mpadded mphantom mprescripts mroot mrow ms mspace
    msqrt mstyle msub msubsup msup mtable mtd mtext mtr munder munderover none
""".split())
ATTRIBUTES = frozenset("""
    align alt class colspan controls dir height id lang loading max open preload role rowspan span start style target
    title value width accent accentunder columnalign columnlines columnspacing depth display displaystyle fence form
    largeop linethickness lspace mathbackground mathcolor mathsize mathvariant maxsize minsize movablelimits notation
    rowalign rowlines rowspacing rspace scriptlevel separator stretchy symmetric xmlns
""".split())
STYLES = ("background", "background-color", "border", "border-collapse", "border-left", "border-radius", "color",
          "display", "float", "font-family", "font-size", "font-style", "font-weight", "height", "margin", "max-width",
          "opacity", "padding", "text-align", "text-decoration", "vertical-align", "white-space", "width")
#: an address that is not relative to the page: `https:...`, `//host/...`, `/folder/...`, `\\host\...`
_ELSEWHERE = re.compile(r"\s*([a-zA-Z][\w+.-]*:|[/\\])")


def clean(html: str) -> str:
    """The HTML with only the tags, attributes and styles above; other tags are shown as text.

    Images and players may refer to files beside the page only; links may lead to the web.
    """
    return _cleaner().clean(html)


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "src":
        return tag in ("img", "video", "audio", "source") and not _ELSEWHERE.match(value)
    if name == "href":
        return tag == "a"  # of its addresses, those with other schemes than the ones below are dropped
    if name == "style" and re.search(r"\\|url|image-set", value, re.IGNORECASE):
        return False
    return name in ATTRIBUTES or name.startswith("aria-")


@lru_cache(1)
def _cleaner() -> Any:
    from bleach.css_sanitizer import CSSSanitizer
    from bleach.sanitizer import Cleaner

    return Cleaner(tags=TAGS | MATHML, attributes=_allowed, protocols=("http", "https", "mailto"),
                   css_sanitizer=CSSSanitizer(allowed_css_properties=STYLES), strip=False, strip_comments=True)
