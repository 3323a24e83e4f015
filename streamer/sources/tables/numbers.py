"""Parses numbers as people and programs write them: decimal commas, thousands separators, units, words for "missing".

A number is read only if it is unambiguous. ``1,234`` is 1.234 or 1234: the other cells of its column, or of its table,
decide; if they don't, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from streamer.sensors.columns import LARGEST

__all__ = ["MISSING", "NO_NUMBER", "SWITCHES", "NumberError", "Numbers", "Sentinels", "evidence"]

#: Words for a missing value, in lower case.
MISSING = frozenset(
    "|na|n/a|n.a.|nan|-nan|null|(null)|<null>|none|nil|<na>|nat|-|--|---|.|?|??|*|unknown|unavailable|undefined|missing"
    "|inf|+inf|-inf|infinity|-infinity|+infinity|\\n|#n/a|#nv|#value!|#ref!|#div/0!|#num!|#wert!|1.#qnan|1.#ind|-1.#ind"
    "|-1.#qnan|1.#inf|-1.#inf|no data|nodata|\u2014|\u2013".split("|")
)
SWITCHES = {"on": 1.0, "true": 1.0, "yes": 1.0, "off": 0.0, "false": 0.0, "no": 0.0}
_PREFIXED = "Pa V A W Wh Hz VA VAh var varh B bit bps B/s bit/s b/s g m l L s Ω ohm F J N eq".split()
_PREFIXES = ("", "n", "u", "µ", "μ", "m", "k", "K", "M", "G", "T", "h", "c", "d", "Ki", "Mi", "Gi", "Ti")
UNITS = frozenset(
    "% ‰ ° °C °F ℃ ℉ C F K R pH ppm ppb ppt rpm 1/min bar mbar psi inHg mmHg Torr m/s km/h mph kn kt ft ft/s in l/min"
    " L/min l/h m³ m3 m^3 m³/h m3/h dm³ cm³ µg/m³ μg/m³ ug/m3 mg/m³ mg/m3 g/m³ g/m3 µg/m3 W/m² W/m2 kWh/m² lx lux klx"
    " dB dBm dBA dB(A) min h d y yr day days hour hours sec msec ms t lb oz gal kcal cal mol % % RH %RH rH mm/h mm cm"
    " km ha m² m2 km² nSv/h µSv/h uSv/h Bq/m³ Bq/m3 cps cpm € $ £ ¥ CHF EUR USD ct cent ct/kWh €/kWh EUR/MWh €/MWh"
    " deg deg C deg F degC degF degrees Grad counts count pcs req/s ops/s iops px fps °dH NTU FNU FTU PSU µS/cm uS/cm"
    " mS/cm S/m mV/V kN kPa(g) Vpp Vrms Ah mAh µA".split(" ")
) | {prefix + unit for prefix in _PREFIXES for unit in _PREFIXED}  # fmt: skip
UNITS |= {"deg C", "deg F", "% RH", "% rH"}
LONGEST = 60
NO_NUMBER = "is no number"
_NUMBER = re.compile(
    r"(?P<sign>[+-]?)\s?(?:[€$£¥]\s?)?(?P<body>\d[\d.,'\u2019\s]*|[.,]\d+)(?P<power>[eE][+-]?\d{1,4})?\s*"
    r"(?P<unit>[^\d\s.,'\u2019].*)?"
)
_SPACES = re.compile(r"[\s'\u2019]")


class NumberError(ValueError):
    """The message follows the quoted cell: ``is no number``, or a reason."""


@dataclass(frozen=True, slots=True)
class Sentinels:
    """The user's texts for a missing value, compared as text and, if numeric, as numbers."""

    words: frozenset[str] = frozenset()
    numbers: frozenset[float] = frozenset()

    @classmethod
    def of(cls, texts: Iterable[str]) -> Sentinels:
        words = frozenset(word.strip().lower() for word in texts)
        numbers = set()
        for word in words:
            try:
                numbers.add(float(word.replace("\u2212", "-")))
            except ValueError:
                continue
        return cls(words, frozenset(numbers))


@dataclass(slots=True)
class Numbers:
    """Parses one column's cells. ``decimal``: ``"."`` or ``","`` if known, else empty; then ``lean`` says how to read
    ``1,234`` (``","``: 1.234; empty: refused). ``switches``: on and off are 1 and 0. ``unit``: the first number's unit;
    ``None`` before the first number."""

    decimal: str = ""
    lean: str = ""
    sentinels: Sentinels = field(default_factory=Sentinels)
    switches: bool = False
    unit: str | None = None

    def __call__(self, cell: str) -> float | None:
        """The cell's value, ``None`` if missing. Raises :class:`NumberError`."""
        cell = cell.strip()
        if self.decimal != "," and "_" not in cell:  # most cells
            try:
                value = float(cell)
            except ValueError:
                pass
            else:
                if self.sentinels.words and (value in self.sentinels.numbers or cell.lower() in self.sentinels.words):
                    return None
                if abs(value) < LARGEST:
                    return self._of_unit(value, "", cell)
                return None
        return self._slow(cell)

    def _slow(self, cell: str) -> float | None:
        word = cell.lower()
        if word in MISSING or word in self.sentinels.words:
            return None
        if self.switches and word in SWITCHES:
            return SWITCHES[word]
        found = _parts(cell)
        if found is None:
            raise NumberError(NO_NUMBER)
        if not self.decimal and len(proved := evidence((cell,))) == 1:
            self.decimal = proved.pop()
        sign, body, power, unit = found
        try:
            value = float(sign + _plain(body, self.decimal, self.lean) + power)
        except OverflowError:
            return None
        if value in self.sentinels.numbers or not abs(value) < LARGEST:
            return None
        return self._of_unit(value, unit, cell)

    def _of_unit(self, value: float, unit: str, cell: str) -> float:
        if self.unit is None:
            self.unit = unit
        elif unit != self.unit:
            was = f"in {self.unit}" if self.unit else "without a unit"
            raise NumberError(f"is {f'in {unit}' if unit else 'without a unit'}, the cells before are {was}")
        return value


def evidence(cells: Iterable[str]) -> set[str]:
    """The decimal marks that these cells prove: ``20,4`` and ``1.234,5`` prove a comma, ``20.4`` and ``1,234.5`` a
    point."""
    found: set[str] = set()
    for cell in cells:
        parts = _parts(cell.strip())
        if parts is None:
            continue
        body = _SPACES.sub("", parts[1])
        marks = [c for c in body if c in ",."]
        if not marks:
            continue
        if len(set(marks)) == 2:
            found.add(marks[-1])
        elif len(marks) > 1:  # thousands
            found.add("," if marks[0] == "." else ".")
        elif not _grouped(body, marks[0]):
            found.add(marks[0])
    return found


def _parts(cell: str) -> tuple[str, str, str, str] | None:
    """Sign, digits with their marks, power of ten and unit; ``None`` if the cell is not a number."""
    if len(cell) > LONGEST or "_" in cell:
        return None
    cell = cell.replace("\u2212", "-")
    if cell[:2] == '="' and cell[-1:] == '"':  # a spreadsheet's way to keep digits as they are
        cell = cell[2:-1]
    match = _NUMBER.fullmatch(cell)
    if match is None:
        return None
    unit = " ".join((match["unit"] or "").split())
    if unit and unit not in UNITS:
        return None
    return match["sign"], match["body"].strip(), match["power"] or "", unit


def _grouped(body: str, mark: str) -> bool:
    """Whether the single ``mark`` may be a thousands separator."""
    before, _, behind = body.partition(mark)
    return len(behind) == 3 and 1 <= len(before) <= 3 and before[0] != "0"


def _plain(body: str, decimal: str, lean: str) -> str:
    """A number in Python's notation. Raises :class:`NumberError`."""
    spaced: list[str] = _SPACES.split(body)
    if len(spaced) > 1:
        last_group = re.split(r"[.,]", spaced[-1])
        _check_groups([*spaced[:-1], last_group[0]])
        body = "".join(spaced)
        if any(mark in "".join(spaced[:-1]) for mark in ",."):
            raise NumberError(NO_NUMBER)
        if len(last_group) == 2:  # the only mark behind groups is the decimal one
            return body.replace(",", ".")
    marks = [c for c in body if c in ",."]
    if not marks:
        return body
    last, other = marks[-1], "," if marks[-1] == "." else "."
    if other in marks:
        if marks.count(last) > 1:
            raise NumberError(NO_NUMBER)
        whole, _, part = body.partition(last)
        _check_groups(whole.split(other), indian=other == ",")
        return whole.replace(other, "") + "." + part
    if len(marks) > 1:
        _check_groups(body.split(last), indian=last == ",")
        return body.replace(last, "")
    if _grouped(body, last) and decimal != last:
        if decimal:
            return body.replace(last, "")
        if last == "," and lean != ",":
            raise NumberError(
                f"is {body.replace(',', '.')} or {body.replace(',', '')}: say which with --decimal , or ."
            )
        return body.replace(",", ".")
    if decimal and decimal != last:
        raise NumberError(f"is no number, its column has decimal {'points' if decimal == '.' else 'commas'}")
    return body.replace(",", ".")


def _check_groups(groups: Sequence[str], indian: bool = False) -> None:
    first, *rest = groups
    good = 1 <= len(first) <= 3 and len(rest[-1:][0] if rest else "000") == 3
    good = good and all(len(group) == 3 or (indian and len(group) == 2) for group in rest)
    if not good:
        raise NumberError(NO_NUMBER)
