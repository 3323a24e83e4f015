"""Outputs of ``generate``: the terminal, a file of text, sound or notes, the loudspeaker."""

from __future__ import annotations

import json
import sys
import wave
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from streamer.commands import CommandError, why

if TYPE_CHECKING:
    from streamer.tasks import Event
    from streamer.tasks.generate import GenerateOptions, Note

__all__ = ["Sink", "sink"]

FORMS = {"text": (".txt",), "notes": (".mid", ".midi", ".wav"), "audio": (".wav",)}


class Sink:
    def event(self, event: Event) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """End the output."""


def sink(options: GenerateOptions, path: Path | None, play: bool, as_json: bool) -> Sink:
    """The output for a file name. Raises :class:`CommandError` if the format does not fit the model's output, or the
    file can't be written."""
    kind = options.kind
    if play and kind == "text":
        raise CommandError("text can't be played: --play is for sound and notes", 2)
    if (path is not None) + play + as_json > 1:
        raise CommandError("--output, --play and --json exclude each other: give one of them", 2)
    if path is not None and path.suffix.lower() not in FORMS[kind]:
        raise CommandError(
            f"-o {path}: this model makes {kind}: name a file that ends in {' or '.join(FORMS[kind])}", 2
        )
    if as_json:
        return Json()
    if play:
        return SpeakerSink(options)
    try:
        if kind == "audio":
            if path is None:
                raise CommandError("sound is no text: give a file with -o FILE.wav, or --play, or --json", 2)
            return Wav(path, options.sample_rate or 0)
        if kind == "notes":
            return NoteLines() if path is None else NoteFile(path)
        return TextSink(sys.stdout if path is None else path.open("w", encoding="utf-8"))
    except OSError as error:
        raise CommandError(f"can't write {path}: {why(error)}") from error


class Json(Sink):
    def event(self, event: Event) -> None:
        print(json.dumps(event.to_dict()), flush=True)


class TextSink(Sink):
    def __init__(self, file: TextIO) -> None:
        self._file = file

    def event(self, event: Any) -> None:
        self._file.write(event.text)
        self._file.flush()

    def close(self) -> None:
        self._file.write("\n")
        self._file.flush()
        if self._file is not sys.stdout:
            self._file.close()


class NoteLines(Sink):
    """Writes one line for each note: start, end, name."""

    names = "C C# D D# E F F# G G# A A# B".split()

    def event(self, event: Any) -> None:
        octave, name = divmod(event.pitch, 12)
        print(f"{event.start:8.2f} {event.end:8.2f}  {self.names[name]}{octave - 1}", flush=True)


class NoteFile(Sink):
    """Writes a MIDI file, or its sound, at the end: a note's place in the file depends on the others."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: list[Note] = []
        path.write_bytes(b"")  # fails before the work if the file can't be written

    def event(self, event: Any) -> None:
        self._notes.append(event)

    def close(self) -> None:
        from streamer.commands.midi import RATE, midi, synthesise

        if self._path.suffix.lower() != ".wav":
            self._path.write_bytes(midi(self._notes))
            return
        with _wav(self._path, RATE) as file:
            file.writeframes(synthesise(self._notes).astype("<i2").tobytes())


class Wav(Sink):
    def __init__(self, path: Path, rate: int) -> None:
        self._file = _wav(path, rate)

    def event(self, event: Any) -> None:
        self._file.writeframes(event.pcm.astype("<i2").tobytes())

    def close(self) -> None:
        self._file.close()


class SpeakerSink(Sink):
    """Plays on the system's loudspeaker; notes are played together at the end."""

    def __init__(self, options: GenerateOptions) -> None:
        from streamer.commands.midi import RATE

        try:
            import sounddevice
        except OSError as error:
            raise CommandError("PortAudio is missing: sudo apt install libportaudio2", 2) from error
        rate = options.sample_rate or RATE
        try:
            self._stream = sounddevice.OutputStream(rate, channels=1, dtype="int16")
            self._stream.start()
        except sounddevice.PortAudioError as error:
            raise CommandError(f"can't play: {error}: choose another device, or write a file with -o") from error
        self._notes: list[Note] = []

    def event(self, event: Any) -> None:
        if event.type == "audio":
            self._stream.write(event.pcm)
        else:
            self._notes.append(event)

    def close(self) -> None:
        from streamer.commands.midi import synthesise

        if self._notes:
            self._stream.write(synthesise(self._notes))
        self._stream.stop()
        self._stream.close()


def _wav(path: Path, rate: int) -> wave.Wave_write:
    file = wave.open(str(path), "wb")  # noqa: SIM115
    file.setnchannels(1)
    file.setsampwidth(2)
    file.setframerate(rate)
    return file
