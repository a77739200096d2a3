"""The service: a door that speaks HTTP, and replicas that answer, on Ray Serve."""

import os

# Read when Ray Serve is imported, here and in the replicas. By these a question goes to a replica over gRPC, and is met
# there in the loop that it arrives in: half of what Ray Serve adds to it otherwise (docs/decisions/0019).
for _name, _value in (("RAY_SERVE_USE_GRPC_BY_DEFAULT", "1"), ("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "0")):
    os.environ.setdefault(_name, _value)

from service.application import application  # noqa: E402 -- it imports Ray Serve

__all__ = ["application"]
