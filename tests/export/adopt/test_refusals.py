"""What can't be adopted, and what each is told: the reason, and the line that would help. Nothing is written."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.adopt.build import BrokenLawsError, adopt
from export.adopt.report import AdoptionError
from export.adopt.settings import read_settings
from tests.export.adopt.support import adoption, settings, written

#: A whole model: y and the state follow x, slowly.
PLAIN = """(float[b, 1, 4] x, float[b, 1, 4] h) => (float[b, 1, 4] y, float[b, 1, 4] hn) {
    s = Add(x, h)  hn = Tanh(s)  y = Neg(hn)
}"""


def refused(tmp_path: Path, source: Path, toml: str, *reasons: str) -> None:
    before = sorted(tmp_path.iterdir())
    with pytest.raises(AdoptionError) as caught:
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, toml), beside=tmp_path, max_batch=2, long_chunks=20)
    said = " ".join(str(caught.value).split())
    assert [reason for reason in reasons if reason not in said] == [], said
    assert sorted({*tmp_path.iterdir()} - {tmp_path / "adopt.toml"}) == [p for p in before if p.name != "adopt.toml"]


def test_the_whole_model_that_the_others_lack_something_of(tmp_path: Path) -> None:
    assert adoption(written(tmp_path / "m.onnx", PLAIN)).pairs == {"h": "hn"}


# -- the file ----------------------------------------------------------------------------------------------------------


def test_no_file(tmp_path: Path) -> None:
    refused(tmp_path, tmp_path / "missing.onnx", "", "can't read", "missing.onnx", "No such file")


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04 a zip", b"\x08\x07"])
def test_no_onnx_file(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    refused(tmp_path, tmp_path / "m.onnx", "", "is not an ONNX file", "export the model to ONNX first")


def test_a_file_that_was_adopted_already(tmp_path: Path) -> None:
    adopted = adoption(written(tmp_path / "m.onnx", PLAIN))
    refused(tmp_path, adopted.path, "", "has a manifest already", "streamer check")


def test_operators_of_a_library_that_the_daemon_does_not_have(tmp_path: Path) -> None:
    text = PLAIN.replace("Neg(hn)", "tfx.Whisk(hn)")
    source = written(tmp_path / "m.onnx", text, imports=', "tfx": 1')
    refused(tmp_path, source, "", "operators of tfx", "plain ONNX operators")


def test_a_graph_that_does_not_hold_together(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("Neg(hn)", "Neg(nothing)"))
    refused(tmp_path, source, "", "can't be run by this runtime", "nothing")


def test_words_are_no_stream(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("h) =>", "h, string[b] label) =>"))
    refused(tmp_path, source, "", "label is string", "tensors of numbers only")


def test_an_input_of_unknown_rank(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN)
    proto = onnx.load(source)
    proto.graph.input[1].type.tensor_type.ClearField("shape")
    onnx.save(proto, source)
    refused(tmp_path, source, "", "h has no declared rank")


# -- what is what ------------------------------------------------------------------------------------------------------


def test_no_state(tmp_path: Path) -> None:
    source = written(
        tmp_path / "m.onnx", "(float[b, 1, 4] x) => (float[b, 1] y) { y = ReduceMax<axes = [2], keepdims = 0>(x) }"
    )
    refused(tmp_path, source, "", "no state pair found", "[state]", "[input] overlap", "[host]")


def test_a_state_that_does_not_come_back(tmp_path: Path) -> None:
    text = PLAIN.replace("float[b, 1, 4] h)", "float[b, 1, 4] h, float[b, 7] cell)").replace(
        "Neg(hn)", "Neg(hn) z = Neg(cell)"
    )
    refused(
        tmp_path,
        written(tmp_path / "m.onnx", text),
        "",
        "cell float32 [b, 7] has no value",
        "[state] cell",
        "[constants]",
        "cell = 0.0",
        "[counters] cell",
    )


def test_a_sample_rate_that_nobody_said(tmp_path: Path) -> None:
    text = """(float[b, t] input, float[b, 4] state, int64 sr) => (float[b, 4] output, float[b, 4] stateN) {
        zero = Constant<value = int64[1] {1}>()
        f = Cast<to = 1>(sr)
        level = ReduceMean<axes = [1]>(input)
        s = Add(level, state)  q = Div(s, f)  stateN = Tanh(q)  output = Neg(stateN)
    }"""
    source = written(tmp_path / "m.onnx", text)
    refused(
        tmp_path, source, "[input]\nchunk = 8\n", "sr int64 [] takes the sample rate", "[input]", "sample_rate = 16000"
    )
    assert adoption(source, "[input]\nchunk = 8\nsample_rate = 16000\n").said("made sr the constant 16000")


TWINS = """(float[b, 1, 4] x, float[b, 1, 4] {0}, float[b, 1, 4] {1})
    => (float[b, 1, 4] y, float[b, 1, 4] {2}, float[b, 1, 4] {3}) {{
    r = Add(x, {0})  s = Add(r, {1})  {2} = Tanh(s)  {3} = Sin(s)  y = Neg({2})
}}"""


def test_states_of_one_shape_whose_names_do_not_tell(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", TWINS.format("alpha", "beta", "left", "right"))
    said = "alpha float32 [b, 1, 4] may come back as y or left or right, as does beta"
    refused(tmp_path, source, "", said, "[state]", 'alpha = "left"', 'beta = "right"')
    adopted = adoption(source, '[state]\nalpha = "left"\nbeta = "right"\n')
    assert adopted.pairs == {"alpha": "left", "beta": "right"}


def test_a_state_with_two_ways_back(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", TWINS.format("h", "c", "h_out", "new_h"))
    refused(tmp_path, source, "", "h float32 [b, 1, 4] may come back as", "h_out or new_h")


def test_a_way_back_for_two_states(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", TWINS.format("prev_h", "h_in", "h_out", "right"))
    refused(tmp_path, source, "", "prev_h float32 [b, 1, 4] may come back as", "as does h_in")


def test_nothing_is_left_for_the_stream(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN)
    refused(tmp_path, source, "[constants]\nx = 1.0\n", "none takes the stream", "[input] name = one of x, h")


def test_no_result_is_left(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN)
    refused(tmp_path, source, '[outputs]\ndrop = ["y"]\n', "every output that is left is a state", "[outputs] keep")


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ('[input]\nname = "z"', "the settings name z: the tensors are h, hn, x, y"),
        ('[input]\nname = "y"', "'y' is not a free input of the graph, whose free inputs are x, h"),
        ('[state]\nh = "nope"', "the settings name nope"),
        ('[state]\nh = "x"', "[state] h = 'x': the graph's outputs are y, hn"),
        ('[outputs]\nkeep = ["y", "hn"]', "[outputs] keep: hn is not a result of the graph, whose results are y"),
        ("[constants]\nz = 1", "the settings name z"),
        ("[counters]\nh = 1", "[counters] h: h float32 [b, 1, 4] does not count"),
        ("[input]\nbatch = 3", "[input] batch = 3: the input is x float32 [b, 1, 4]"),
        ("[batch]\nh = 3", "[batch] h = 3: the state is h float32 [b, 1, 4]"),
        ("[input]\ntime = 0", "[input] time = 0 is not an axis of x"),
        ("[input]\nchunk = 2", "takes 1 on axis 1: [input] chunk and overlap are 2 and 0, their sum must be 1"),
        ("[outputs.time]\ny = 0", "[outputs] time of y = 0: it has the sizes [1, 1, 4], the batch on axis 0"),
        ("[outputs.time]\ny = 2", "1 samples or rows a call can't be divided evenly into 4 steps of y"),
        ('[task]\nname = "nonsense"', "the settings describe an invalid model"),
        ('[task]\nname = "raw"\nblank = 0', "the task raw has no options, leave out blank"),
        ('[task]\nname = "transcribe"\ntokens = "tokens.txt"', "[task] tokens: can't read"),
        ('[model]\nname = "Not A Name"', "the settings describe an invalid model"),
        ("[host]\nfft = 8\nhop = 4", "[host] fft is for sound: say [input] sample_rate"),
        ("[input]\nsample_rate = 8000\n[host]\nfft = 8\nhop = 4", "has no axis of 8"),
    ],
)
def test_settings_that_do_not_fit_the_model(tmp_path: Path, toml: str, reason: str) -> None:
    refused(tmp_path, written(tmp_path / "m.onnx", PLAIN), toml, reason)


# -- sizes -------------------------------------------------------------------------------------------------------------


def test_a_chunk_of_any_length(tmp_path: Path) -> None:
    text = (
        PLAIN.replace("1, 4] x", "t, 4] x")
        .replace("Add(x, h)", "Add(m, h)")
        .replace("{", "{ m = ReduceMean<axes = [1], keepdims = 1>(x)", 1)
    )
    source = written(tmp_path / "m.onnx", text)
    refused(tmp_path, source, "", "axis 1 is free", "[input]", "chunk = 1")
    assert adoption(source, "[input]\nchunk = 5\n").manifest.input.chunk_shape == (5, 4)


RECURRENT = """(float[t, b, 4] x, float[1, b, 5] h) => (float[t, 1, b, 5] y, float[1, b, 5] hn)
    <float[1, 15, 4] w, float[1, 15, 5] r> {
    y, hn = GRU<hidden_size = 5>(x, w, r, , , h)
}"""


def recurrent(path: Path, text: str = RECURRENT) -> Path:
    """With weights that are no zeros."""
    source, rng = written(path, text), np.random.default_rng(3)
    proto = onnx.load(source)
    del proto.graph.initializer[:]
    for name, width in (("w", 4), ("r", 5)):
        array = rng.standard_normal((1, 15, width)).astype(np.float32)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    onnx.save(proto, source)
    return source


def test_a_recurrence_over_any_number_of_steps_takes_one_a_call(tmp_path: Path) -> None:
    source = recurrent(tmp_path / "m.onnx")
    adopted = adoption(source)
    assert adopted.manifest.input.chunk_shape == (1, 4)
    assert adopted.said("stream x", "1 step of 4 values a call", "for more a call say [input] chunk = N")
    assert adoption(source, "[input]\nchunk = 7\n").manifest.input.chunk_shape == (7, 4)


def test_a_recurrence_whose_output_mixes_the_steps_of_a_call_is_asked_about(tmp_path: Path) -> None:
    text = RECURRENT.replace("y, hn = GRU", "a, hn = GRU").replace("h)\n}", "h)\n    y = CumSum(a, zero)\n}")
    text = text.replace("5] r>", "5] r, int64 zero = {0}>")
    source = recurrent(tmp_path / "m.onnx", text)
    proto = onnx.load(source)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array(0), "zero"))
    onnx.save(proto, source)
    refused(tmp_path, source, "", "axis 0 is free; rows new in each call", "[input]", "chunk = 1")


def test_a_size_of_two_states_is_asked_for_once_so_that_the_toml_can_be_pasted(tmp_path: Path) -> None:
    text = """(float[1, 1, 4] x, float[1, p, 4] k, float[1, p, 4] v)
        => (float[1, 1, 4] y, float[1, q, 4] k1, float[1, q, 4] v1) {
        k1 = Concat<axis = 1>(k, x)  v1 = Concat<axis = 1>(v, x)
        a = ReduceSum<keepdims = 1>(k1, axis)  b = ReduceSum<keepdims = 1>(v1, axis)  y = Mul(a, b)
    }"""
    text = text.replace(" {\n", " <int64[1] axis = {1}> {\n", 1)
    source = written(tmp_path / "m.onnx", text)
    toml = "[state]\nk = 'k1'\nv = 'v1'\n"
    with pytest.raises(AdoptionError, match="grows from call to call") as caught:
        adopt(source, tmp_path / "out.onnx", settings(tmp_path, toml), max_batch=2, long_chunks=20)
    pasted = str(caught.value).split(":\n", 1)[1]
    assert tomllib.loads(pasted) == {"dims": {"p": 1}}
    assert "k float32 [1, p, 4]" in pasted
    assert "v float32 [1, p, 4]" in pasted


def test_features_of_any_number(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("4]", "f]"))
    refused(tmp_path, source, "[input]\ntime = 1\n", "unknown size on axis 2", "[dims]", "f = 1")
    assert adoption(source, "[input]\ntime = 1\n[dims]\nf = 3\n").manifest.input.chunk_shape == (1, 3)


def test_sound_of_two_channels(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("1, 4]", "2, 64]"))
    refused(tmp_path, source, "[input]\nsample_rate = 8000\n", "takes more than one channel of sound, a stream has one")


def test_a_batch_fixed_at_two(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("[b,", "[2,"))
    refused(tmp_path, source, "", "the batch of x float32 [2, 1, 4] is fixed at 2", "a batch of 1, or a free one")


def test_a_state_of_any_size(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("4] h", "n] h").replace("4] hn", "n] hn"))
    refused(
        tmp_path, source, "", "h float32 [b, 1, n] has a dynamic size on axis 2", "[dims]", "n = 1", "[batch] h = 2"
    )


def test_a_state_that_grows(tmp_path: Path) -> None:
    text = """(float[b, 1, 4] x, float[b, n, 4] cache) => (float[b, 1, 4] y, float[b, m, 4] new_cache) {
        new_cache = Concat<axis = 1>(cache, x)  y = ReduceMean<axes = [1], keepdims = 1>(new_cache)
    }"""
    source = written(tmp_path / "m.onnx", text)
    refused(
        tmp_path, source, "[dims]\nn = 3\n", "goes in as float32 [1, 3, 4]", "as float32 [1, 4, 4]", "keeps its size"
    )


def test_a_state_of_another_type(tmp_path: Path) -> None:
    source = written(tmp_path / "m.onnx", PLAIN.replace("float[b, 1, 4] hn", "double[b, 1, 4] hn").replace(
        "hn = Tanh(s)", "o = Tanh(s) hn = Cast<to = 11>(o)").replace("Neg(hn)", "Neg(o)"))  # fmt: skip
    refused(tmp_path, source, '[state]\nh = "hn"\n', "h float32 [b, 1, 4] can't become hn float64 [b, 1, 4]")


def test_chunks_that_it_does_not_run_on(tmp_path: Path) -> None:
    text = PLAIN.replace("{", "{ five = Constant<value = int64[3] {1, 5, 4}>() r = Reshape(x, five)", 1)
    source = written(tmp_path / "m.onnx", text.replace("1, 4] x", "t, 4] x").replace("Add(x, h)", "Add(r, h)"))
    refused(tmp_path, source, "[input]\nchunk = 3\n", "does not run on chunks of [1, 3, 4]", "check [input]")


def test_a_result_with_nothing_in_it(tmp_path: Path) -> None:
    text = PLAIN.replace("float[b, 1, 4] y,", "float[b, 1, z] y,")
    cut = "n = Constant<value = int64[1] {0}>() a = Constant<value = int64[1] {2}>() y = Slice(hn, n, n, a)"
    refused(tmp_path, written(tmp_path / "m.onnx", text.replace("y = Neg(hn)", cut)), "", "y is empty, [1, 1, 0]")


def test_a_scale_for_whole_numbers(tmp_path: Path) -> None:
    text = """(int32[b, 8] x, float[b, 8] h) => (float[b, 8] y, float[b, 8] hn) {
        f = Cast<to = 1>(x)  s = Add(f, h)  hn = Tanh(s)  y = Neg(hn)
    }"""
    source = written(tmp_path / "m.onnx", text)
    refused(tmp_path, source, "[input]\nsample_rate = 8000\nscale = 0.5\n", "scale = 0.5", "whole numbers")


SPECTRUM = """(float[b, 1, 5] x, float[b, 1, 5] h) => (float[b, 1, 5] y, float[b, 1, 5] hn) {
    s = Add(x, h)  hn = Tanh(s)  y = Sigmoid(hn)
}"""


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("fft = 8\nhop = 8", "gives some samples no weight: take a shorter hop"),
        ("fft = 16\nhop = 4", "the input x float32 [b, 1, 5] has no axis of 16"),
        ('fft = 8\nhop = 4\nresult = "frame"', "the output y has no axis of 8"),
        ('fft = 8\nhop = 4\nfeature = "complex"', "no axis of 2 for the real and the imaginary part"),
        ('fft = 8\nhop = 4\nchain = "second.onnx"', "can't read"),
    ],
)
def test_a_host_that_does_not_fit(tmp_path: Path, host: str, reason: str) -> None:
    source = written(tmp_path / "m.onnx", SPECTRUM)
    refused(tmp_path, source, f"[input]\nsample_rate = 8000\n[host]\n{host}\n", reason)


# -- the settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("toml", "reason"),
    [
        ("[input", "is not TOML"),
        ("[inputs]\nname = 'x'", "table or line inputs is unknown: did you mean input?"),
        ("[input]\nrate = 8000", "line input.rate is unknown: did you mean sample_rate?"),
        ("[host]\nfft = 8\nhop = 4\nwindows = 'hann'", "line host.windows is unknown: did you mean window?"),
        ("[recurrence]\nkeep = 1", "line recurrence.keep is unknown: there are restarts"),
        ("[input]\nchunk = 0", "input.chunk: Input should be greater than or equal to 1"),
        ("[host]\nfft = 8\nhop = 3", "a hop of 3 does not divide the fft of 8"),
        ("[host]\nfft = 7\nhop = 7", "host.fft: Input should be a multiple of 2"),
        ("[host]\nfft = 8\nhop = 4\nwindow = 'kaiser'", "host.window: Input should be 'none', 'hann'"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, toml: str, reason: str) -> None:
    with pytest.raises(AdoptionError) as caught:
        settings(tmp_path, toml)
    assert reason in str(caught.value)
    assert "adopt.toml" in str(caught.value)


def test_settings_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AdoptionError, match=r"can't read .*missing\.toml: No such file"):
        read_settings(tmp_path / "missing.toml")


# -- the laws ----------------------------------------------------------------------------------------------------------


def test_a_state_that_counts_up_for_ever_breaks_a_law(tmp_path: Path) -> None:
    text = PLAIN.replace("s = Add(x, h)  hn = Tanh(s)", "a = Abs(x)  hn = Add(a, h)")
    source = written(tmp_path / "m.onnx", text)
    with pytest.raises(BrokenLawsError, match="breaks its laws, nothing was written") as caught:
        adopt(source, tmp_path / "out.onnx", max_batch=2, long_chunks=60)
    assert {finding.law for finding in caught.value.verdict.refusals} == {"endurance"}
    assert list(tmp_path.iterdir()) == [source]


def test_a_graph_that_throws_dice(tmp_path: Path) -> None:
    text = PLAIN.replace("y = Neg(hn)", "r = RandomNormalLike(hn)  y = Add(hn, r)")
    refused(tmp_path, written(tmp_path / "m.onnx", text), "", "breaks its laws", "same input, same bits")


def test_rows_that_see_each_other_stay_alone(tmp_path: Path) -> None:
    text = PLAIN.replace("y = Neg(hn)", "m = ReduceMean<axes = [0], keepdims = 1>(hn)  y = Add(hn, m)")
    adopted = adoption(written(tmp_path / "m.onnx", text))
    assert adopted.said("a batch that can't be freed", "max_batch = 1")
    assert adopted.manifest.max_batch == 1


def test_what_was_there_before_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    target.write_bytes(b"precious")
    with pytest.raises(AdoptionError):
        adopt(tmp_path / "missing.onnx", target)
    assert target.read_bytes() == b"precious"
