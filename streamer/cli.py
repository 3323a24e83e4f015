"""The command line.

Errors are one line on standard error; the exit code is 2 for usage and bad input, 1 for failures, 130 for Ctrl-C.
"""

from __future__ import annotations

import functools
import io
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from streamer import commands
from streamer.commands.completion import VARIABLE, completion, prepare
from streamer.commands.paths import check_files

__all__ = ["app", "main"]

#: The bases of typer's usage errors. Depending on its version, typer defines them or takes them from click.
_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
_ClickError: type[Exception] = typer.BadParameter.__mro__[2]

EPILOG = {
    "serve": commands.examples(
        "streamer serve",
        "streamer serve --model digits --port 9000",
        "streamer serve --config streamer.toml",
        "STREAMER_LOG_LEVEL=debug streamer serve",
    ),
    "transcribe": commands.examples(
        "streamer transcribe talk.flac",
        "streamer transcribe --srt -o subtitles/ *.mp3",
        "streamer transcribe --json --model digits a.wav b.wav",
        "ffmpeg -v error -i rtsp://camera/ -f wav - | streamer transcribe -",
        "streamer transcribe --revise base talk.wav",
        "arecord -t raw -f S16_LE -r 16000 | streamer transcribe - --rate 16000",
        "streamer transcribe --url ws://127.0.0.1:8765 talk.opus",
    ),
    "listen": commands.examples(
        "streamer listen",
        "streamer listen --list-devices",
        "streamer listen --device USB --seconds 60 --json",
        "streamer listen --url ws://127.0.0.1:8765 --model digits",
    ),
    "forecast": commands.examples(
        "streamer forecast samples/sensor.csv",
        "streamer forecast --plot out.png --value temperature samples/sensor.csv",
        "streamer forecast --json --id pump --time ts readings.ndjson.gz",
        "streamer forecast --csv --last 1 wide.csv > forecasts.csv",
        "mosquitto_sub -v -t 'sensors/#' | streamer forecast - --json",
    ),
    "generate": commands.examples(
        'streamer generate --prompt "the " --temperature 0.8 --top-k 20 --seed 1 --length 400',
        "streamer generate --json --length 100",
        "streamer generate --model music --seconds 30 -o tune.mid",
        "streamer generate --model spoken-digits --set digit=seven -o seven.wav",
    ),
    "classify": commands.examples(
        "streamer classify talk.flac",
        "streamer classify --json --model vad talk.flac",
        "arecord -t raw -f S16_LE -r 16000 | streamer classify -",
        "streamer classify --url ws://127.0.0.1:8765 --model vad talk.opus",
    ),
    "enhance": commands.examples(
        "streamer enhance talk.flac -o clean.wav",
        "arecord -t raw -f S16_LE -r 16000 | streamer enhance - | aplay -t raw -f S16_LE -r 16000",
        "streamer enhance --listen --output-device cable",
        "streamer enhance --url ws://127.0.0.1:8765 talk.opus -o clean.flac",
    ),
    "run": commands.examples(
        "streamer run plant.onnx rows.csv",
        "streamer run plant.onnx table.csv --columns pressure,flow,level -o outputs.csv",
        "streamer run plant.onnx rows.npy -o outputs.npz",
        "tail -f rows.ndjson | streamer run plant.onnx - --format ndjson",
    ),
    "adopt": commands.examples(
        "streamer adopt silero_vad.onnx --config silero.toml",
        "streamer adopt encoder.onnx -o encoder.streamer.onnx",
        "streamer adopt sherpa-onnx-streaming-zipformer-en-2023-06-26 -o english.onnx",
    ),
    "export": commands.examples(
        "streamer export my_module.py:make_model --weights net.pt -o plant.onnx",
        "streamer export my_module.py:make_model --labels walk,run,fall -o gait.onnx",
    ),
    "check": commands.examples("streamer check digits", "streamer check path/to/model.onnx"),
    "models": commands.examples("streamer models"),
    "token": commands.examples(
        "streamer token add alice",
        "streamer token add grafana --scope read",
        "streamer token add plant --scope write --requests-per-second 50",
        "STREAMER_STATE_DIRECTORY=/var/lib/streamer streamer token list",
        "streamer token remove alice",
    ),
    "drain": commands.examples("streamer drain --to http://10.0.0.2:8765"),
    "reload": commands.examples("streamer reload", "systemctl reload streamer"),
    "sessions": commands.examples(
        "streamer sessions list",
        "streamer sessions export meeting-7 -o meeting-7.stream",
        "streamer sessions import meeting-7 meeting-7.stream --url http://10.0.0.2:8765",
        "streamer sessions evict meeting-7",
    ),
    "top": commands.examples(
        "streamer top",
        "streamer top --url https://10.0.0.2:8765 --every 5",
        "streamer top --once --json | jq .models",
    ),
    "completion": commands.examples(
        "streamer completion bash >> ~/.bashrc",
        "streamer completion zsh > ~/.zfunc/_streamer",
        "streamer completion fish > ~/.config/fish/completions/streamer.fish",
    ),
    "sign": commands.examples(
        "streamer sign --new-key me.key",
        "streamer sign --key me.key plant.onnx",
        "streamer sign --check me.key.pub plant.onnx",
    ),
}

#: Help texts for the list of commands, which truncates longer ones.
SHORT = {
    "serve": "Serve streams over WebSockets, until SIGTERM.",
    "transcribe": "Transcribe speech in recordings.",
    "listen": "Transcribe speech from the microphone.",
    "forecast": "Forecast sensors, learning while they run.",
    "generate": "Let a model write, play or speak by itself.",
    "classify": "Classify sound or text, as it arrives.",
    "enhance": "Remove noise from speech, also live.",
    "run": "Run any model on rows: outputs as a table.",
    "adopt": "Adapt a stateful ONNX model from elsewhere.",
    "export": "Export your PyTorch module to a model file.",
    "check": "Test a model file on this machine.",
    "models": "List the installed models and their scores.",
    "token": "Manage the access tokens of a daemon.",
    "drain": "Move all streams and sensors to another daemon.",
    "reload": "Reload changed model files in a daemon.",
    "sessions": "A daemon's streams: list, export, import, evict.",
    "sign": "Sign model files, or check their signatures.",
    "top": "Watch a daemon: streams, sensors, lag, refusals.",
    "completion": "Print shell completion of commands and options.",
}

app = typer.Typer(
    name="streamer",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="streamer COMMAND --help shows the options of a command, with examples.",
)


class _Options:
    debug = False


def _version(wanted: bool) -> None:
    if wanted:
        from streamer import __version__

        typer.echo(f"streamer {__version__}")
        raise typer.Exit


@app.callback()
def _streamer(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from (a traceback).")] = False,
) -> None:
    """Stateful streaming inference: speech to text and sensor forecasts, for many endless streams at once."""
    _Options.debug = debug


def _pipeable(command: Callable[..., None]) -> Callable[..., None]:
    """Wrap ``command`` so that its file names are checked, and that it quits silently when its output pipe is closed;
    typer would exit with 1, as for a failure."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            check_files(command.__name__, options)
            command(*arguments, **options)
            sys.stdout.flush()
        except BrokenPipeError:
            commands.quit_silently()

    return run


def _register() -> None:
    """Add all commands to :data:`app`."""
    from streamer.commands.admin import drain, reload, sessions
    from streamer.commands.adopt import adopt
    from streamer.commands.check import check
    from streamer.commands.classify import classify
    from streamer.commands.enhance import enhance
    from streamer.commands.export import export
    from streamer.commands.forecast import forecast
    from streamer.commands.generate import generate
    from streamer.commands.listen import listen
    from streamer.commands.models import models
    from streamer.commands.run import run
    from streamer.commands.serve import serve
    from streamer.commands.sign import sign
    from streamer.commands.token import token
    from streamer.commands.top import top
    from streamer.commands.transcribe import transcribe

    shown = (
        serve,
        transcribe,
        listen,
        forecast,
        generate,
        classify,
        enhance,
        run,
        adopt,
        export,
        check,
        models,
        sign,
        drain,
        reload,
        top,
        completion,
    )
    for command in shown:
        app.command(epilog=EPILOG[command.__name__], short_help=SHORT[command.__name__])(_pipeable(command))
    for each in (*token.registered_commands, *sessions.registered_commands):
        if each.callback is not None:
            each.callback = _pipeable(each.callback)
    app.add_typer(token, name="token", help=SHORT["token"], short_help=SHORT["token"], epilog=EPILOG["token"])
    app.add_typer(sessions, name="sessions", epilog=EPILOG["sessions"], short_help=SHORT["sessions"])


_register()


def main() -> None:
    """The entry point ``streamer``."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # file names that are not UTF-8 are printed as their bytes
        sys.stdout.reconfigure(errors="surrogateescape")
    if os.environ.get(VARIABLE):
        prepare()
    try:
        code = app(standalone_mode=False, prog_name="streamer")
    except _ClickError as error:
        _usage(error)
        code = 2
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as error:
        if _Options.debug:
            raise
        code = _explain(error)
    raise SystemExit(code if isinstance(code, int) else 0)


def _usage(error: BaseException) -> None:
    """Print a usage error on standard error."""
    context = getattr(error, "ctx", None)
    message = error.format_message()  # type: ignore[attr-defined]
    where = context.command_path if context is not None else "streamer"
    if type(error).__name__ == "NoArgsIsHelpError":  # its message is the whole help
        print(message, file=sys.stderr)
        return
    hint = f" ({where} --help shows how)" if isinstance(error, _UsageError) else ""
    print(f"{where}: {message}{hint}", file=sys.stderr)


def _explain(error: Exception) -> int:
    """Print an error and return the exit code. Our own errors have messages for the user. Any other error is a defect
    or a fault of the machine, so its type is printed, too."""
    if isinstance(error, commands.CommandError):
        commands.complain(str(error))
        return error.code
    if type(error).__module__.startswith("streamer."):
        commands.complain(str(error))
        return 2 if isinstance(error, ValueError) else 1
    if isinstance(error, OSError):
        commands.complain(f"{error.filename}: {commands.why(error)}" if error.filename else commands.why(error))
        return 1
    commands.complain(f"internal error: {type(error).__name__}: {error} (streamer --debug COMMAND ... shows where)")
    return 1
