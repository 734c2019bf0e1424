"""Pools whose replicas are pods of a workload on Kubernetes: a Deployment or a LeaderWorkerSet.

`client` alone speaks to the API server, `objects` reads what it says and `faults` what goes wrong,
`watched` keeps objects in memory, `election` finds out whether this scaler acts, `pool` does so for
one workload, `target` is the port's. What is asked of a workload is decided in `policy.workload`.
"""
