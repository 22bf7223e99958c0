"""Compiles app/_scan.c, app/_grams.c and app/_views.c: into the wheel, or beside the source for an editable install.

Law: without a compiler or Python's headers the build goes on and says so; Sluice then runs on its slower engine (docs/adr/0013).
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from setuptools import Distribution, Extension
from setuptools.command.build_ext import build_ext


class Compiled(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if self.target_name != "wheel":
            return
        self._made = tempfile.mkdtemp()
        engines = [
            Extension(f"app.{name}", [f"app/{name}.c"], extra_compile_args=["-O3"], optional=True)
            for name in ("_scan", "_grams", "_views")
        ]
        command = build_ext(Distribution({"ext_modules": engines}))
        command.inplace, command.build_lib, command.build_temp = version == "editable", self._made, self._made
        command.ensure_finalized()
        command.run()
        for file in Path(self._made).glob("app/_*.so"):
            build_data["force_include"][str(file)] = f"app/{file.name}"
            build_data["pure_python"], build_data["infer_tag"] = False, True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self.target_name == "wheel":
            shutil.rmtree(self._made)
