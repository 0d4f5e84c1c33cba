"""The one build step pyproject.toml cannot say: generate the protobuf code before packages are collected."""

import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))

from gen_protos import generate  # noqa: E402


class BuildWithProtos(build_py):
    def run(self) -> None:
        generate(ROOT)
        if "parties.pb" not in self.packages:  # packages were listed before it existed
            self.packages.append("parties.pb")
        super().run()


setup(cmdclass={"build_py": BuildWithProtos})
