# mypy: disable-error-code="import-not-found"
"""Turn checkpoints into what the CPU engine serves: `python -m engines.local.export --tier large`.

Each precision becomes a folder that stands alone, laid out like a model on the Hugging Face hub.
"""

import argparse
import json
import shutil
import sys
import tempfile
from pathlib import Path

import openvino as ov
from rich.console import Console
from safetensors.numpy import load_file

from engines.graph import build
from engines.recipes import RECIPES

SHARED_FILES = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json")


def export(checkpoint: Path, tier: str, precision: str, folder: Path) -> int:
    """Write one weight folder; gives its size in bytes."""
    weights = load_file(checkpoint / "model.safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    model = build(RECIPES[tier].shape, weights, precision)
    model.set_rt_info(precision, ["pennyweight", "precision"])
    # A running engine has the old weights mapped into memory: replace files, never rewrite them.
    with tempfile.TemporaryDirectory(dir=folder.parent) as fresh:
        # scales and norms keep the type the graph gives them
        ov.save_model(model, Path(fresh, "openvino_model.xml"), compress_to_fp16=False)
        for name in SHARED_FILES:
            shutil.copy(checkpoint / name, fresh)
        for path in Path(fresh).iterdir():
            path.replace(folder / path.name)
    return sum(path.stat().st_size for path in folder.iterdir())


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Export checkpoints for the CPU engine.")
    parser.add_argument("--checkpoints", type=Path, default=Path("engines/checkpoints"))
    parser.add_argument("--repository", type=Path, default=Path("model_repository/cpu"))
    parser.add_argument("--tier", choices=[*RECIPES], action="append", help="default: all")
    options = parser.parse_args()
    console = Console()
    for tier in options.tier or RECIPES:
        checkpoint = options.checkpoints / tier
        if not (checkpoint / "model.safetensors").is_file():
            sys.exit(
                f"--checkpoints: {checkpoint} has no model.safetensors; run engines.local.train"
            )
        config = json.loads((checkpoint / "config.json").read_text())
        if config["hidden_size"] != RECIPES[tier].shape.width:
            sys.exit(f"--checkpoints: {checkpoint} has another shape than the recipe")
        for precision in RECIPES[tier].precisions:
            folder = options.repository / tier / "weights" / precision
            size = export(checkpoint, tier, precision, folder)
            console.print(f"{folder}: {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
