"""Forms, whole and damaged, of our own and of a client's encoder."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamer.serve.openai.multipart import MAX_PARTS, MultipartError, parse_form

KIND = "multipart/form-data; boundary=line"
#: What looks like the end of a part, and is none.
NASTY = st.sampled_from([b"\r\n", b"--line", b"\r\n--line", b"\r\n--lines\r\n", b"--", b"\r\n--lin", b"x", b"\0"])
DATA = st.lists(NASTY | st.binary(max_size=20)).map(b"".join)


def form(*parts: tuple[str, str | None, bytes], end: bytes = b"\r\n--line--\r\n") -> bytes:
    body = b""
    for name, file, data in parts:
        more = "" if file is None else f'; filename="{file}"'
        body += f'\r\n--line\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + data
    return (body + end)[2:]


def is_inside(data: bytes) -> bool:
    """RFC 2046: the boundary must not stand at the beginning of a line of a part."""
    return b"\r\n--line\r\n" not in b"\r\n" + data + b"\r\n" and b"\r\n--line--" not in b"\r\n" + data + b"\r\n"


@given(st.lists(DATA.filter(is_inside), min_size=1, max_size=4))
def test_files_come_out_as_they_went_in(files: list[bytes]) -> None:
    found = parse_form(form(*((f"f{n}", f"n{n}.wav", data) for n, data in enumerate(files))), KIND)
    assert [bytes(found.files[f"f{n}"].data) for n in range(len(files))] == files
    assert [found.files[f"f{n}"].file for n in range(len(files))] == [f"n{n}.wav" for n in range(len(files))]


@given(st.binary(max_size=300) | DATA, st.integers(0, 200))
def test_damage_is_refused_or_read_and_never_anything_else(data: bytes, cut: int) -> None:
    whole = form(("file", "a.wav", data), ("model", None, b"toy"))
    for body in (data, whole[:cut], whole[:cut] + data):
        with contextlib.suppress(MultipartError):
            parse_form(body, KIND)


def test_a_form_that_is_cut_is_never_taken() -> None:
    whole = form(("file", "a.wav", b"RIFF" * 10), end=b"\r\n--line--")
    for cut in range(len(whole)):
        with pytest.raises(MultipartError):
            parse_form(whole[:cut], KIND)
    assert bytes(parse_form(whole, KIND).files["file"].data) == b"RIFF" * 10


def test_fields_and_lists() -> None:
    found = parse_form(form(("keywords[]", None, b"Z\xc3\xbcrich"), ("keywords[]", None, b"b"), ("m", None, b"")), KIND)
    assert found.fields == {"keywords": ["Zürich", "b"], "m": [""]}


@pytest.mark.parametrize(
    ("head", "name"),
    [
        ('name="file"; filename="a \\"b\\".wav"', 'a "b".wav'),
        ("name=file; filename=a.wav", "a.wav"),
        ('name="file"; filename="x"; filename*=UTF-8\'\'gr%C3%B6%C3%9Fe.wav', "größe.wav"),
    ],
)
def test_names_of_files(head: str, name: str) -> None:
    body = f"--line\r\ncontent-type: audio/wav\r\nCONTENT-DISPOSITION: form-data; {head}\r\n\r\nx\r\n--line--".encode()
    assert parse_form(body, 'Multipart/Form-Data; charset=x; boundary="line"').files["file"].file == name


@pytest.mark.parametrize(
    "kind", ["", "application/json", "multipart/form-data", f"multipart/form-data; boundary={'x' * 71}"]
)
def test_other_content_types(kind: str) -> None:
    with pytest.raises(MultipartError):
        parse_form(form(("a", None, b"b")), kind)


def test_bounds() -> None:
    with pytest.raises(MultipartError, match=str(MAX_PARTS)):
        parse_form(form(*[("a", None, b"b")] * (MAX_PARTS + 1)), KIND)
    with pytest.raises(MultipartError, match="65536"):
        parse_form(form(("a", None, bytes(70_000))), KIND)
    with pytest.raises(MultipartError, match="8192"):
        parse_form(b"--line\r\nx: " + bytes(9000) + b"\r\n\r\nb\r\n--line--", KIND)
