"""The zoo: architectures as short files of composed layers, each with a recipe of minutes. Imported when asked for.

An architecture's class has a ``config`` with ``to_dict`` and ``from_dict``; a recipe is
``train(folder, minutes or None) -> folder/best.pt``, and leaves ``folder/scores.json``; one of several models gives
``None`` and says how to export them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: ``python -m models zoo NAME`` -> module:function.
RECIPES = {
    "sequences": "models.zoo.sequences:train",
    "attending": "models.zoo.attending:train",
    "written-line": "models.zoo.written_line:train",
    "sentiment": "models.zoo.sentiment:train",
    "keyword": "models.zoo.keyword:train",
    "vad": "models.zoo.vad:train",
    "characters": "models.zoo.characters:train",
    "numbers": "models.zoo.numbers:train",
    "denoiser": "models.zoo.denoiser:train",
    "music": "models.zoo.music:train",
    "spoken-digits": "models.zoo.spoken_digits:train",
    "parallel-digits": "models.zoo.parallel_digits:train",
    "digit-sequences": "models.zoo.digit_sequences:train",
    "bidirectional-digits": "models.zoo.bidirectional_digits:train",
    "transducer-digits": "models.zoo.transducer_digits:train",
}
#: What a checkpoint may hold -> module:class, and its configuration in the same module.
ARCHITECTURES = {
    "audio-classifier": "models.zoo.audio_classifier:AudioClassifier:AudioClassifierConfig",
    "encoder-decoder": "models.zoo.encoder_decoder:EncoderDecoder:EncoderDecoderConfig",
    "masking": "models.zoo.masking:Masking:MaskingConfig",
    "listener": "models.zoo.listener:Listener:ListenerConfig",
    "parallel-wavenet": "models.zoo.parallel_wavenet:ParallelWaveNet:ParallelConfig",
    "sequence": "models.zoo.sequence:SequenceForecaster:SequenceConfig",
    "attending-forecaster": "models.zoo.attending_forecaster:AttendingForecaster:AttendingConfig",
    "line-reader": "models.zoo.line_reader:LineReader:LineReaderConfig",
    "text-classifier": "models.zoo.text_classifier:TextClassifier:TextClassifierConfig",
    "token-rnn": "models.zoo.token_rnn:TokenRNN:TokenRNNConfig",
    "transducer": "models.zoo.transducer:Transducer:TransducerConfig",
    "wavenet-generator": "models.zoo.wavenet_generator:WaveNetGenerator:WaveNetConfig",
}


def find(where: str) -> tuple[Any, ...]:
    """What ``module:name:name`` names."""
    module, *names = where.split(":")
    found = import_module(module)
    return tuple(getattr(found, name) for name in names)
