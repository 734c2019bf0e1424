"""What every service shares: configuration, errors, the gRPC server, credentials, telemetry."""
