"""The zoo: architectures as short files of composed layers, each with a recipe of minutes. Imported on demand.

An architecture's class has a ``config`` with ``to_dict`` and ``from_dict``. A recipe is
``train(folder, minutes or None) -> folder/best.pt``, and writes ``folder/scores.json``; a recipe of several models
returns ``None`` and prints the commands that export them.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

#: Recipes by the name in ``python -m models zoo NAME``: module:function.
RECIPES = {
    "sequences": "models.zoo.forecast.sequences:train",
    "attending": "models.zoo.forecast.attending:train",
    "written-line": "models.zoo.classify.written_line:train",
    "sentiment": "models.zoo.classify.sentiment:train",
    "keyword": "models.zoo.speech.keyword:train",
    "vad": "models.zoo.speech.vad:train",
    "characters": "models.zoo.generate.characters:train",
    "numbers": "models.shipped.numbers:train",
    "denoiser": "models.shipped.denoiser:train",
    "music": "models.zoo.generate.music:train",
    "spoken-digits": "models.zoo.generate.spoken_digits:train",
    "parallel-digits": "models.zoo.generate.parallel_digits:train",
    "digit-sequences": "models.zoo.speech.digit_sequences:train",
    "bidirectional-digits": "models.zoo.speech.bidirectional_digits:train",
    "transducer-digits": "models.zoo.speech.transducer_digits:train",
}
#: Architectures by kind of checkpoint: module:class:configuration.
ARCHITECTURES = {
    "audio-classifier": "models.zoo.speech.audio_classifier:AudioClassifier:AudioClassifierConfig",
    "captions": "models.shipped.captions:Captions:CaptionsConfig",
    "encoder-decoder": "models.shipped.encoder_decoder:EncoderDecoder:EncoderDecoderConfig",
    "masking": "models.shipped.masking:Masking:MaskingConfig",
    "listener": "models.zoo.speech.listener:Listener:ListenerConfig",
    "parallel-wavenet": "models.zoo.generate.parallel_wavenet:ParallelWaveNet:ParallelConfig",
    "sequence": "models.zoo.forecast.sequence:SequenceForecaster:SequenceConfig",
    "attending-forecaster": "models.zoo.forecast.attending_forecaster:AttendingForecaster:AttendingConfig",
    "line-reader": "models.zoo.classify.line_reader:LineReaderNetwork:LineReaderConfig",
    "text-classifier": "models.zoo.classify.text_classifier:TextClassifierNetwork:TextClassifierConfig",
    "token-rnn": "models.zoo.generate.token_rnn:TokenRNN:TokenRNNConfig",
    "transducer": "models.zoo.speech.transducer:Transducer:TransducerConfig",
    "wavenet-generator": "models.zoo.generate.wavenet_generator:WaveNetGenerator:WaveNetConfig",
}


def find(where: str) -> tuple[Any, ...]:
    """The objects that ``module:name:name`` names."""
    module, *names = where.split(":")
    found = import_module(module)
    return tuple(getattr(found, name) for name in names)
