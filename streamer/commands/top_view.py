"""``streamer top`` as lines: what fits into the width and the height, the most telling columns first."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from streamer.commands.top_look import DaemonLook, ModelLook

__all__ = ["view"]

#: Seconds of lag from which on it is shown in colour: what people notice.
LATE = 1.0
#: Reasons of refusals that are shown.
REASONS = 6


class Column(NamedTuple):
    """``width``: the terminal's, from which on the column is shown."""

    title: str
    width: int
    show: Callable[[Any], str | Text]


def view(look: DaemonLook, before: DaemonLook | None, url: str, width: int, height: int, note: str = "") -> Group:
    """Everything for a terminal of ``width`` columns and ``height`` lines. ``note``: the last line, in the place of
    streams."""
    head: list[RenderableType] = [_line(_title(look, url)), _line(_traffic(look)), _line(_sensors(look))]
    if refused := _refused(look, before):
        head.append(_line(refused))
    if look.models:
        head += [Text(), _table(MODELS, list(look.models.items()), width)]
    used = len(head) + len(look.models) + (1 if look.models else 0)
    if note:
        return Group(*head, _line(Text(note, style="bold red")))
    return Group(*head, Text(), *_streams(look, before, width, max(1, height - used - 3)))


def _line(text: Text) -> Text:
    """One line, however narrow the terminal is."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text


def _title(look: DaemonLook, url: str) -> Text:
    first, *rest = look.ready.splitlines() or [""]
    state = first + (f" ({rest[0]})" if rest else "")
    host = url.partition("://")[2]
    return Text.assemble(
        (f"streamer {look.version}".strip(), "bold"), f" {host}  ", (state, "bold red" if look.trouble else "green")
    )


def _traffic(look: DaemonLook) -> Text:
    active = sum(model.active for model in look.models.values())
    detached = sum(model.detached for model in look.models.values())
    bytes_ = look.rates.get("streamer_received_bytes_total")
    parts = [
        f"{active} stream{'' if active == 1 else 's'}" + (f", {detached} without a client" if detached else ""),
        f"{int(look.value('streamer_connections'))} connections",
        *([] if bytes_ is None else [f"{_short(bytes_)}B/s in"]),
    ]
    return Text(", ".join(parts))


def _sensors(look: DaemonLook) -> Text:
    found = look.sensors()
    rate = found["readings_per_second"]
    text = Text(f"{found['known']} sensor{'' if found['known'] == 1 else 's'}")
    if rate is not None:
        text.append(f", {_short(rate)} readings/s")
    if found["waiting"]:
        style = "yellow" if found["oldest_seconds"] > LATE else ""
        text.append(f", {found['waiting']} wait, the oldest {_seconds(found['oldest_seconds'])}", style)
    return text


def _refused(look: DaemonLook, before: DaemonLook | None) -> Text | None:
    """Refusals since the start; those since the look before in colour."""
    found = look.refused()
    past = {} if before is None else before.refused()
    if not found:
        return None
    new = {reason: count - past.get(reason, 0) for reason, count in found.items()} if before is not None else {}
    text, comma = Text("refused: "), ""
    for reason, count in sorted(found.items(), key=lambda item: (-new.get(item[0], 0), -item[1]))[:REASONS]:
        text.append(f"{comma}{reason} {count}", "red" if new.get(reason, 0) > 0 else "")
        if new.get(reason, 0) > 0:
            text.append(f" (+{new[reason]})", "bold red")
        comma = ", "
    return text


def _streams(look: DaemonLook, before: DaemonLook | None, width: int, room: int) -> Sequence[RenderableType]:
    if look.sessions is None:
        why = look.unseen or "the daemon gave no reason"
        return [_line(Text(f"single streams are not shown: {why} (a token of scope admin: --token)", style="dim"))]
    if not look.sessions:
        return [Text("no streams yet", style="dim")]
    past = {_key(one): one for one in (before.sessions or [] if before is not None else [])}
    seconds = 0.0 if before is None else look.at - before.at
    rows = [StreamLine(one, past.get(_key(one)), seconds) for one in look.sessions]
    rows.sort(key=lambda row: (row.order, not row.rate, row.name))  # by what seldom changes: nothing jumps
    made: list[RenderableType] = [_table(STREAMS, rows[:room], width)]
    if len(rows) > room or look.more:
        left = f"{'at least ' * look.more}{len(rows) - min(room, len(rows))}"
        made.append(_line(Text(f"and {left} more: streamer sessions list", style="dim")))
    return made


def _key(one: dict[str, Any]) -> tuple[str, str]:
    return one.get("owner", ""), one["stream"]


class StreamLine:
    """One stream: its facts, and its rows per second since ``past``."""

    def __init__(self, facts: dict[str, Any], past: dict[str, Any] | None, seconds: float) -> None:
        self.name = "/".join(filter(None, _key(facts)))
        self.state, self.model = str(facts["state"]), str(facts.get("model", ""))
        self.position, self.age = int(facts.get("position", 0)), float(facts.get("age_seconds", 0.0))
        self.unsaved = self.position - int(facts.get("acknowledged", 0))
        self.order = ("attached", "waiting").index(self.state) if self.state in ("attached", "waiting") else 2
        moved = None if past is None else self.position - int(past.get("position", 0))
        self.rate = moved / seconds if moved is not None and moved >= 0 and seconds else None


def _table(columns: Sequence[Column], rows: Sequence[Any], width: int) -> Table:
    """The columns that fit; where the names do not, they are cut, and never the numbers."""
    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    shown = [column for column in columns if width >= column.width]
    cells = [[_text(column.show(row)) for row in rows] for column in shown]
    room = width - 1
    for column, texts in zip(shown[1:], cells[1:], strict=True):
        room -= 2 + max(cell_len(column.title), *(cell_len(text.plain) for text in texts))
    made.add_column(shown[0].title, no_wrap=True, overflow="ellipsis", max_width=max(6, room))
    for column in shown[1:]:
        made.add_column(column.title, no_wrap=True, justify="left" if column.title == "model" else "right")
    for row in zip(*cells, strict=True):
        made.add_row(*row)
    return made


def _text(cell: str | Text) -> Text:
    return Text(cell) if isinstance(cell, str) else cell


def _of_model(show: Callable[[ModelLook], str | Text]) -> Callable[[tuple[str, ModelLook]], str | Text]:
    return lambda row: show(row[1])


def _load(load: float) -> Text:
    return Text(f"{load:.0%}", style="bold red" if load >= 1 else "yellow" if load >= 0.8 else "")


def _late(seconds: float | None) -> Text:
    return Text("" if seconds is None else _seconds(seconds), style="yellow" if (seconds or 0.0) > LATE else "")


def _seconds(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def _short(number: float) -> str:
    """With a thousand as k: 1.2k, 34M."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 1000 or unit == "G":
            break
        number /= 1000
    return f"{number:.0f}{unit}" if number >= 10 or number == int(number) else f"{number:.1f}{unit}"


def _rate(rate: float | None) -> str:
    return "" if rate is None else _short(rate)


MODELS = (
    Column("model", 0, lambda row: Text(row[0])),
    Column("streams", 0, _of_model(lambda model: str(model.active))),
    Column("lag 95%", 0, _of_model(lambda model: _late(model.lag))),
    Column("load", 0, _of_model(lambda model: _load(model.load))),
    Column("rows/s", 56, _of_model(lambda model: _rate(model.rows))),
    Column("oldest", 64, _of_model(lambda model: _late(model.oldest))),
    Column("batch", 72, _of_model(lambda model: "" if model.batch is None else f"{model.batch:.1f}")),
    Column("no client", 84, _of_model(lambda model: str(model.detached))),
)
STREAMS = (
    Column("stream", 0, lambda row: Text(row.name, style="" if row.state == "attached" else "dim")),
    Column("state", 0, lambda row: row.state),
    Column("rows/s", 0, lambda row: _rate(row.rate)),
    Column("last row", 56, lambda row: _seconds(row.age)),
    Column("unsaved", 66, lambda row: _short(row.unsaved)),
    Column("position", 78, lambda row: str(row.position)),
    Column("model", 92, lambda row: Text(row.model)),
)
