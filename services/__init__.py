"""The three services; each runs from the source tree as ``python -m services.<name>``."""

import os

os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
"""Said before gRPC is imported, which else meddles with every fork: beside a server that serves,
one child process in some dozens then ended before it became its own program. None of ours goes on
as a copy of its parent."""
