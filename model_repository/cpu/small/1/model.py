"""The CPU engine, as Triton's Python backend finds it."""

import sys
from pathlib import Path

# A repository view links here: the real file stands in the source tree.
sys.path.insert(0, str(Path(__file__).resolve().parents[4]))

from engines.cpu.stub.model import TritonPythonModel

__all__ = ["TritonPythonModel"]
