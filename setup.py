"""What pyproject.toml can't say: models/pretrained/ of a checkout becomes streamer/pretrained/ of the wheel.

An editable install copies nothing: streamer.engine.catalogue.find_models() looks beside the package, too.
"""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PRETRAINED = Path("models", "pretrained")


class BuildWithModels(build_py):
    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        target = self._target()
        shutil.rmtree(target, ignore_errors=True)  # an earlier build's models must not live on
        target.mkdir(parents=True)
        for source in self._sources():
            self.copy_file(str(source), str(target / source.name))

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        outputs = super().get_outputs(include_bytecode)
        return outputs if self.editable_mode else [*outputs, *(str(self._target() / s.name) for s in self._sources())]

    def get_source_files(self) -> list[str]:
        return [*super().get_source_files(), *map(str, self._sources())]

    def _target(self) -> Path:
        return Path(self.build_lib, "streamer", "pretrained")

    @staticmethod
    def _sources() -> list[Path]:
        """The models, and the card of each."""
        return [path for path in sorted(PRETRAINED.glob("*")) if path.suffix in (".onnx", ".md")]


setup(cmdclass={"build_py": BuildWithModels})
