"""A sound server of the test's own with a cable in it: what is played into it, a microphone hears at its end."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

PROGRAMS = ("pulseaudio", "pactl", "paplay")
#: Where the ALSA plugin that leads to PulseAudio may be (package libasound2-plugins).
PLUGINS = ("/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so", "/usr/lib/alsa-lib/libasound_module_pcm_pulse.so")
ASOUNDRC = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"
START_SECONDS = 20.0


def missing() -> list[str]:
    """What has to be installed before this works."""
    names = [name for name in PROGRAMS if shutil.which(name) is None]
    if not any(list(Path("/").glob(pattern[1:])) for pattern in PLUGINS):
        names.append("libasound2-plugins")
    try:
        import sounddevice  # noqa: F401
    except OSError:
        names.append("libportaudio2")
    return names


class Cable:
    """``env`` is the environment in which the default microphone is the cable's end. Files live in ``home``."""

    def __init__(self, home: Path) -> None:
        self._runtime = home / "run"
        self._runtime.mkdir(mode=0o700)
        (home / ".asoundrc").write_text(ASOUNDRC)
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULSE_", "XDG_", "DBUS_", "ALSA_"))}
        self.env = kept | {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": str(self._runtime),
            "XDG_CONFIG_HOME": str(home / "config"),
            "PULSE_SERVER": f"unix:{self._runtime}/native",
        }
        self._server: subprocess.Popen[bytes] | None = None
        self.plug()

    def plug(self) -> None:
        """Start the server with the cable and wait until it answers."""
        socket = f"module-native-protocol-unix socket={self._runtime}/native auth-anonymous=1"
        command = [
            "pulseaudio",
            "--daemonize=no",
            "--exit-idle-time=-1",
            "--use-pid-file=no",
            "-n",
            "--log-level=error",
        ]
        command += ["-L", socket, "-L", "module-null-sink sink_name=cable rate=16000 channels=1"]
        self._server = subprocess.Popen(command, env=self.env, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until = time.monotonic() + START_SECONDS
        while "cable.monitor" not in self._pactl("list", "short", "sources"):
            assert self._server.poll() is None, "pulseaudio ended at once"
            assert time.monotonic() < until, "pulseaudio does not answer"
            time.sleep(0.05)

    def unplug(self) -> None:
        """The server is gone, and the microphone with it."""
        assert self._server is not None
        self._server.kill()
        self._server.wait()
        (self._runtime / "native").unlink(missing_ok=True)

    def unload(self) -> None:
        """The cable alone is gone, the server goes on: a microphone that is pulled out."""
        self._pactl("unload-module", "module-null-sink")

    def load(self) -> None:
        """It is plugged in again."""
        self._pactl("load-module", "module-null-sink", "sink_name=cable", "rate=16000", "channels=1")

    def recording(self) -> bool:
        """Somebody listens at the other end."""
        return bool(self._pactl("list", "short", "source-outputs").strip())

    def play(self, path: Path) -> None:
        """In real time; returns when it has been played."""
        subprocess.run(["paplay", "--device=cable", str(path)], env=self.env, check=True, timeout=120)

    def close(self) -> None:
        if self._server is not None and self._server.poll() is None:
            self._server.terminate()
            self._server.wait(10)

    def _pactl(self, *arguments: str) -> str:
        done = subprocess.run(["pactl", *arguments], env=self.env, capture_output=True, text=True, timeout=10)
        return done.stdout
