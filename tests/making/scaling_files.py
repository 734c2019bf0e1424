"""A scaling file that is good, and the folders that it names, for tests of what is refused."""

from pathlib import Path

GOOD = """\
pools:
  a:
    tier: small
    model: m
    precision: int8
    repository: models
    slots:
      - {grpc_port: 1, metrics_port: 2}
      - {grpc_port: 3, metrics_port: 4, cpus: [0, 1]}
    size: 1
    parameters: {model: weights, num_threads: 2, reuse: true}
"""


def written(folder: Path, text: str) -> Path:
    """The path of a scaling file with this text, beside a model `m`."""
    (folder / "models/m").mkdir(parents=True, exist_ok=True)
    (folder / "models/m/config.pbtxt").touch()
    (folder / "policies").mkdir(exist_ok=True)
    path = folder / "policies/scaling.yaml"
    path.write_text(text)
    return path
