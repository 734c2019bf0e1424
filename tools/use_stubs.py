"""Uses every stub once with the installed gRPC and protobuf; run by tools/check-stubs."""

import importlib
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parent.parent


def main() -> None:
    """Imports each stub, round-trips each message, binds each service's client to a channel."""
    sys.path.insert(0, str(ROOT))
    import grpc  # noqa: PLC0415

    channel = grpc.insecure_channel("127.0.0.1:1")
    messages = services = 0
    packages = ("pennyweight", "externalscaler")
    paths = [path for name in packages for path in ROOT.glob(f"{name}/**/*_pb2.py")]
    for path in sorted(paths):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        module = importlib.import_module(name)
        for descriptor in module.DESCRIPTOR.message_types_by_name.values():
            kind = getattr(module, descriptor.name)
            kind.FromString(kind().SerializeToString())
            messages += 1
        calls = importlib.import_module(f"{name}_grpc")
        for service in module.DESCRIPTOR.services_by_name:
            getattr(calls, f"{service}Stub")(channel)
            services += 1
    channel.close()
    print(
        f"stubs with grpcio {version('grpcio')}, protobuf {version('protobuf')}: "
        f"{messages} messages, {services} services"
    )


if __name__ == "__main__":
    main()
