"""The tables of the speaker prior, from `results/prior.json`."""
from __future__ import annotations

from typing import Any, Iterable

from intervals import MOTIONS
from report_table import table, where, with_interval

UNSEEN_COLUMNS = ["clips", "audio", *[f"r of {name}" for name in MOTIONS], "speakers", "clips or pairs", "moved"]
#: figure -> targets, at least and aim
TARGETS = {"shut in b, p, m": ("0.85", "0.95"), "spread of the opening": ("0.7 ... 1.3", "0.85 ... 1.15"),
           "opening in silence": ("at most 0.1", "at most 0.05"), "of the answers, within 40 ms": ("0.95", "")}
UNSEEN_TARGETS = "Targets for unseen speakers of `measure`: opening 0.60 (aim 0.70), width 0.40 (0.55)"
VOICES_TARGETS = "for foreign voices on a head: opening 0.55 (0.65); for own voices: opening 0.60 (0.75)"


def texts(result: dict) -> dict[str, str]:
    """Name of a marker -> its table, for the parts that were measured."""
    makers = {"prior": unseen, "prior_sources": sources, "prior_offset": offset, "prior_speech": speech,
              "prior_languages": languages, "prior_pairs": pairs}
    needed = {"prior": ("unseen", "voices"), "prior_sources": ("unseen",), "prior_offset": ("offset",),
              "prior_speech": ("speech",), "prior_languages": ("languages",), "prior_pairs": ("pairs",)}
    return {name: make(result) for name, make in makers.items() if all(part in result for part in needed[name])}


def by_figure(rows: Iterable[dict], *keys: str) -> dict[tuple, dict[str, dict]]:
    """Rows with the same values of some keys, as figure -> row."""
    groups: dict[tuple, dict[str, dict]] = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), {})[row["figure"]] = row
    return groups


def unseen(result: dict) -> str:
    """Speakers that the prior was not fitted on, and voices on the heads; then the choices made on each part."""
    lines = [line for line in speaker_lines(result) if ":" not in line[0]]
    for (group,), row in by_figure(result["voices"], "group").items():
        some = row["opening"]
        lines.append([f"heads of {len(result['datasets'])} datasets: {group}", "as prepared",
                      *[with_interval(row[name]) for name in MOTIONS], some["speakers"], some["clips"], ""])
    choices = "\n".join(f"- {name}: {text}." for name, text in result["choices"].items())
    return (f"{table(UNSEEN_COLUMNS, lines)}\n\n{UNSEEN_TARGETS}; {VOICES_TARGETS}. Means over speakers "
            f"[95 % interval].\n\n{choices}\n\n{where(result['facts'])}")


def sources(result: dict) -> str:
    """Speakers that the prior was not fitted on, by where their clips are from."""
    return table(UNSEEN_COLUMNS, [line for line in speaker_lines(result) if ":" in line[0]])


def speaker_lines(result: dict) -> list[list]:
    """A line for each group of clips and each treatment of their audio."""
    lines = []
    for (group, audio), row in by_figure(result["unseen"], "group", "audio").items():
        some = row["opening"]
        lines.append([group, audio, *[with_interval(row[name]) for name in MOTIONS], some["speakers"], some["clips"],
                      some["moved"]])
    return sorted(lines, key=lambda line: line[0])


def offset(result: dict) -> str:
    """Clips whose audio was moved by known amounts."""
    groups = by_figure(result["offset"], "group")
    figures = list(next(iter(groups.values())))
    lines = [[figure, *[with_interval(rows.get(figure)) for rows in groups.values()], TARGETS.get(figure, ("", ""))[0]]
             for figure in figures]
    heads = [f"{group}, {max(row['speakers'] for row in rows.values())} speakers"
             for (group,), rows in groups.items()]
    return table(["share", *heads, "at least"], lines)


def speech(result: dict) -> str:
    """Closures, spread and silence."""
    lines = []
    for row in result["speech"]:
        least, aim = TARGETS.get(row["figure"], ("", ""))
        lines.append([row["figure"], row["group"], with_interval(row), row["speakers"], row.get("segments", ""), least,
                      aim])
    return table(["figure", "audio", "measured", "speakers or voices", "segments", "at least", "aim"], lines)


def languages(result: dict) -> str:
    """Synthesised speech, by language."""
    rows: list[list[Any]] = []
    for (language,), row in by_figure(result["languages"], "group").items():
        rows.append([language, *[with_interval(figure) for figure in row.values()],
                     next(iter(row.values()))["speakers"]])
    first = next(iter(by_figure(result["languages"], "group").values()))
    return table(["language", *[f"r of the {figure}" for figure in first], "voices"], rows)


def pairs(result: dict) -> str:
    """Every ordered pair of head and audio."""
    lines = [[pair["head"], pair["audio"] if pair["audio"] != pair["head"] else "its own, validation frames",
              "yes" if pair["in_fit"] else "no", pair["frames"], *[f"{pair[name]:.2f}" for name in MOTIONS]]
             for pair in result["pairs"]]
    return table(["head", "audio", "in the fit", "frames", *[f"r of {name}" for name in MOTIONS]], lines)
