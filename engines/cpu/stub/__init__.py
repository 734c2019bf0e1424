"""What runs inside Triton: takes requests, hands them to the process, sends answers."""
