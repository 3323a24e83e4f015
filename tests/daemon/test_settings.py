import re
import signal
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from streamer.serve.daemon import EX_CONFIG
from streamer.settings import Settings, SettingsError, render
from tests.daemon.running import Running

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_settings_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    for name in [n for n in os.environ if n.startswith("STREAMER_")]:
        monkeypatch.delenv(name)


def write(path: Path, text: str) -> Path:
    file = path / "streamer.toml"
    file.write_text(text)
    return file


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path, 'port = 1\nhost = "file"\nlanes = 3\n')
    monkeypatch.setenv("STREAMER_PORT", "2")
    monkeypatch.setenv("STREAMER_HOST", "environment")
    settings = Settings.load(file, {"port": 4, "host": None})
    assert (settings.port, settings.host, settings.lanes) == (4, "environment", 3)


def test_models_from_the_environment_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MODELS", "digits, ./other.onnx")
    assert Settings.load().models == ("digits", "./other.onnx")


def test_the_file_is_found_by_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_CONFIG", str(write(tmp_path, "port = 77\n")))
    assert Settings.load().port == 77


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("prot = 1\n", r"unknown setting prot in .*streamer.toml: did you mean port\?"),
        ("[server]\nport = 1\n", "unknown setting server in"),
        ("port = 99999\n", r"setting port = 99999 \(.*streamer.toml\): .*65535"),
        ('lanes = "many"\n', r"setting lanes = 'many'"),
        ("drain_seconds = nan\n", "setting drain_seconds"),
        ("port = \n", r"is not TOML: .*'port =' lacks a value"),
        ('{"port": 8765}\n', "it looks like JSON; settings are lines like port = 8765"),
        ("port: 8765\n", "has a colon; settings are lines like port = 8765"),
        ("host = localhost\n", "in 'host = localhost' a text needs quotes"),
        ("host = 127.0.0.1\n", "in 'host = 127.0.0.1' a text needs quotes"),
        ('state_directory = "C:\\new\\users"\n', "around a text with backslashes"),
        ("port = 1\nport = 2\n", "'port = 2' is set twice"),
        ('models = ["a", "b"\nport = 1\n', "a bracket before 'port = 1' is not closed"),
        ("mqtt_tls = True\n", "write true"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(SettingsError, match=expected):
        Settings.load(write(tmp_path, text))


def test_an_unknown_variable_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MAX_FRAME_BYTE", "4096")
    with pytest.raises(
        SettingsError, match="STREAMER_MAX_FRAME_BYTE in the environment: did you mean STREAMER_MAX_FRAME_BYTES"
    ):
        Settings.load()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no settings file"):
        Settings.load(tmp_path / "nowhere.toml")


def test_systemd_gives_the_state_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", "/var/lib/streamer:/var/lib/other")
    assert Settings.load().state_directory == Path("/var/lib/streamer")


def test_rendered_settings_give_the_same_settings(tmp_path: Path) -> None:
    settings = Settings(port=1234, models=("a", 'b"\\'), state_directory=tmp_path)
    assert Settings.load(write(tmp_path, render(settings))) == settings


def test_no_second_pass_may_be_written_off() -> None:
    assert Settings(revise="off").revise == Settings(revise="").revise == ""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"models": "nope"}, "no model 'nope': it is neither a shipped name"),
        ({"revise": "nope"}, "no Whisper model is named 'nope': name a folder, or one of tiny.en, "),
        ({"revise": "./nope"}, "no folder ./nope: a Whisper model"),
    ],
)
def test_an_unknown_name_is_refused_before_it_listens(
    tmp_path: Path, toy: Path, given: dict[str, str], said: str
) -> None:
    if "revise" in given:
        pytest.importorskip("faster_whisper")
    running = Running(tmp_path, toy, wait=False, **given)
    try:
        assert running.process.wait(60) == EX_CONFIG
        log = running.errors.read_text()
        assert said in log
        assert "listening" not in log
        assert "Traceback" not in log
    finally:
        running.stop(signal.SIGKILL)


def test_example_file_is_the_rendered_table() -> None:
    text = (ROOT / "streamer.example.toml").read_text()
    assert text == render()
    uncommented = tomllib.loads(re.sub(r"^#(?! )", "", text, flags=re.M))
    assert set(uncommented) == set(Settings.model_fields)


def test_the_daemon_needs_no_training_packages() -> None:
    """Settings, logs and the notify protocol are read before anything heavy; keep it so."""
    code = (
        "import sys, streamer.settings, streamer.serve.logs, streamer.serve.notify; print('onnxruntime' in sys.modules)"
    )
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).strip() == "False"


@pytest.mark.parametrize("coding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_as_windows_saves_it(tmp_path: Path, coding: str) -> None:
    (tmp_path / "streamer.toml").write_bytes("# Käse\r\nport = 77\r\n".encode(coding))
    assert Settings.load(tmp_path / "streamer.toml").port == 77


def test_another_encoding_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "streamer.toml").write_bytes("port = 1\n# Käse\n".encode("cp1252"))
    with pytest.raises(SettingsError, match="line 2: byte 0xe4 is not UTF-8: save it as UTF-8"):
        Settings.load(tmp_path / "streamer.toml")


@pytest.mark.parametrize(
    "text",
    [
        "mqtt_password = 123456789\n",
        "mqtt_password = [123456789]\n",
        "mqtt_password = 123456789x\n",
        "mqtt_password: 123456789\n",
        "mqtt_password = '123456789\n",
        'mqtt_password = "123456789\n',
        "mqtt_password = 123456789\nmqtt_password = 123456789\n",
        "mqtt_pasword = 123456789x\n",
        'mqtt_host = "mqtt://me:123456789@broker"\n',
        'mqtt_host = "me:123456789@broker"\n',
        "token = 123456789x\n",
        'mqtt_password = "123456789"\ntls_cert_file = "x"\n',
        'mqtt_password = "\\123456789"\n',
    ],
)
def test_no_secret_is_in_an_error(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load(write(tmp_path, text))
    assert "123456789" not in str(refused.value)
    assert len(str(refused.value)) > 20


@pytest.mark.parametrize("value", ["broker", "[::1]/path", ""])
def test_no_secret_of_the_environment_either(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMER_MQTT_HOST", f"u:123456789@{value}")
    monkeypatch.setenv("STREAMER_MQTT_PASSWORD", "123456789")
    with pytest.raises(SettingsError, match=r"setting mqtt_host = '\*\*@") as refused:
        Settings.load()
    assert "123456789" not in str(refused.value)


def test_the_effective_settings_show_none(tmp_path: Path) -> None:
    settings = Settings.load(write(tmp_path, 'mqtt_password = "123456789"\n'))
    assert settings.mqtt_password.get_secret_value() == "123456789"
    assert "123456789" not in render(settings) + repr(settings) + str(settings)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"mqtt_host": "h", "mqtt_topics": "a/#/b"}, "MQTT subscription 'a/#/b': # stands for all levels"),
        ({"mqtt_topics": "a/#/b"}, "MQTT subscription 'a/#/b'"),
        ({"mqtt_host": "h", "mqtt_prefix": "a/+"}, "MQTT prefix 'a/+' is not a topic"),
        ({"host": "0.0.0.0"}, "host 0.0.0.0 can be reached from other machines"),
    ],
)
@pytest.mark.parametrize("more", [["--print-config"], []])
def test_what_serve_refuses_is_refused_when_it_is_shown(
    tmp_path: Path, given: dict[str, str], expected: str, more: list[str]
) -> None:
    lines = [f'state_directory = "{tmp_path}"', *(f'{name} = "{value}"' for name, value in given.items())]
    path = write(tmp_path, "\n".join(lines))
    command = [sys.executable, "-m", "streamer", "serve", "--config", str(path), "--port", "0", *more]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 78
    assert expected in done.stderr
    assert ("mqtt_topics =" in done.stdout) == bool(more)


def test_topics_without_a_broker_are_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, f'state_directory = "{tmp_path}"\nmqtt_topics = ["a/b"]')
    command = [sys.executable, "-m", "streamer", "serve", "--config", str(path), "--print-config"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, "mqtt_topics is set without mqtt_host" in done.stderr) == (0, True)
