"""What the scaler counts. Labels are pools, tiers and states of the configuration: bounded."""

from collections.abc import Iterable
from contextlib import suppress

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_START_BUCKETS = (0.5, 1, 2, 4, 8, 15, 30, 60, 120, 300, 600)


class Metrics:
    """All metrics of one scaler."""

    def __init__(self, registry: CollectorRegistry) -> None:
        pool = ("pool", "tier")
        self.desired = Gauge(
            "pennyweight_scaler_desired_replicas",
            "Replicas that a pool should have.",
            pool,
            registry=registry,
        )
        self.replicas = Gauge(
            "pennyweight_scaler_replicas",
            "Replicas that a pool has, by state: starting, ready, draining, or gone (being "
            "cleared away). ready below desired for longer than a start takes: see the pool's "
            "trouble in ListPools.",
            (*pool, "state"),
            registry=registry,
        )
        self.trouble = Gauge(
            "pennyweight_scaler_pool_trouble",
            "1 while something keeps the pool from its size or from its settings in the file; "
            "ListPools says what.",
            pool,
            registry=registry,
        )
        self.settings_refused = Gauge(
            "pennyweight_scaler_settings_refused",
            "1 while a pool goes by its last good settings, as replicas failed with those of the "
            "file; ListPools says why.",
            pool,
            registry=registry,
        )
        self.policy_refused = Gauge(
            "pennyweight_scaler_policy_refused",
            "1 while the scaling file is refused and the pools of before stay; the scaler's log "
            "and ListPools say why.",
            registry=registry,
        )
        self.policy_refusals = Counter(
            "pennyweight_scaler_policy_refusals_total",
            "Changes of the scaling file that were refused.",
            registry=registry,
        )
        self.starts = Counter(
            "pennyweight_scaler_starts_total",
            "Replicas started.",
            pool,
            registry=registry,
        )
        self.adoptions = Counter(
            "pennyweight_scaler_adoptions_total",
            "Replicas taken over from an earlier scaler.",
            pool,
            registry=registry,
        )
        self.failures = Counter(
            "pennyweight_scaler_failures_total",
            "Replicas that died, were not ready in time, fell silent or could not be started. "
            "A steady rate: see the scaler's log for the reasons.",
            pool,
            registry=registry,
        )
        self.start_seconds = Histogram(
            "pennyweight_scaler_start_seconds",
            "Time from starting a replica until it was ready.",
            pool,
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self.drain_seconds = Histogram(
            "pennyweight_scaler_drain_seconds",
            "Time from telling routers of a drain until the replica was stopped.",
            pool,
            buckets=_START_BUCKETS,
            registry=registry,
        )
        self.usd_per_hour = Gauge(
            "pennyweight_scaler_usd_per_hour",
            "What the replicas that a pool has cost an hour, those that start and drain included, "
            "in US dollars; 0 where their price is not known.",
            pool,
            registry=registry,
        )
        self.bound = Gauge(
            "pennyweight_scaler_bound",
            "1 where this kind of constraint had a say in the size that was decided last; "
            "ListPools has the sentence.",
            (*pool, "bound"),
            registry=registry,
        )
        self.decisions = Counter(
            "pennyweight_scaler_size_changes_total",
            "Decisions that changed a pool's size, by direction: up or down.",
            (*pool, "direction"),
            registry=registry,
        )
        self.reversals = Counter(
            "pennyweight_scaler_reversals_total",
            "Changes of a pool's size against the one before within half an hour. A steady rate is "
            "flapping: widen scale_down's stabilization window or work.spare.",
            pool,
            registry=registry,
        )
        self.stale_signals = Gauge(
            "pennyweight_scaler_stale_signals",
            "Signals of a pool's policy that say nothing now; while there are any it does not "
            "shrink.",
            pool,
            registry=registry,
        )
        self.silent_routers = Gauge(
            "pennyweight_scaler_silent_routers",
            "Routers that reported within the last 5 minutes and have fallen silent; while there "
            "are any no pool shrinks.",
            registry=registry,
        )
        self.wakes = Counter(
            "pennyweight_scaler_wakes_total",
            "Calls for a replica of a tier that had none, by answer: coming or none.",
            ("answer",),
            registry=registry,
        )
        self.watchers = Gauge(
            "pennyweight_scaler_watchers",
            "Open WatchReplicas streams.",
            registry=registry,
        )
        self.dropped_watchers = Counter(
            "pennyweight_scaler_dropped_watchers_total",
            "WatchReplicas and WatchDecisions streams ended because their reader was too slow.",
            registry=registry,
        )
        self.routers = Gauge(
            "pennyweight_scaler_routers",
            "Routers that reported their load within the last 10 s.",
            registry=registry,
        )
        self.reports = Counter(
            "pennyweight_scaler_load_reports_total",
            "Load reports taken.",
            registry=registry,
        )

        self.policy_version = Gauge(
            "pennyweight_scaler_policy_version",
            "Number of the scaling file's version in force; `pennyweight scaler history` says who "
            "put it there and what for.",
            registry=registry,
        )
        self.overrides = Gauge(
            "pennyweight_scaler_overrides",
            "Pools whose size an operator overrides for a time; `pennyweight scaler overrides` "
            "lists them.",
            registry=registry,
        )
        self.history_unwritten = Gauge(
            "pennyweight_scaler_history_unwritten",
            "Lines of the history that the disk refuses, which are kept in memory and tried again, "
            "by record: decisions, load or versions (of the scaling file).",
            ("record",),
            registry=registry,
        )
        self.history_lost = Counter(
            "pennyweight_scaler_history_lost_total",
            "Lines of the history that could not be kept, by record: decisions or load. The record "
            "itself says where they are missing.",
            ("record",),
            registry=registry,
        )
        self.cluster_faults = Counter(
            "pennyweight_scaler_cluster_faults_total",
            "Calls to the Kubernetes API server that came to nothing, by fault: conflict (409, is "
            "tried again and no trouble), gone (410, the same), busy (429), forbidden (see the "
            "scaler's Role), missing (404), refused, broken (5xx), slow or unreachable.",
            ("fault",),
            registry=registry,
        )
        self.keda_unknown = Counter(
            "pennyweight_scaler_keda_unknown_total",
            "Questions of KEDA that had no answer: the pool is not known, or what it needs. KEDA "
            "falls back after failureThreshold of them.",
            registry=registry,
        )
        self.leads = Gauge(
            "pennyweight_scaler_leads",
            "1 while this scaler is the one that changes workloads on Kubernetes. The sum over all "
            "scalers of a Lease is 1.",
            registry=registry,
        )

    def kept(self, record: str) -> "KeptLines":
        """What is counted of a record."""
        return KeptLines(self.history_unwritten.labels(record), self.history_lost.labels(record))

    def forget(
        self, pool: str, tier: str, states: Iterable[str], bounds: Iterable[str] = ()
    ) -> None:
        """No longer shows gauges of a pool that is not configured any more."""
        gauges = self.desired, self.trouble, self.settings_refused, self.usd_per_hour
        for gauge in (*gauges, self.stale_signals):
            with suppress(KeyError):
                gauge.remove(pool, tier)
        for gauge, values in ((self.replicas, states), (self.bound, bounds)):
            for value in values:
                with suppress(KeyError):
                    gauge.remove(pool, tier, value)


class KeptLines:
    """What is counted of one record of the history."""

    def __init__(self, unwritten: Gauge, lost: Counter) -> None:
        self._unwritten = unwritten
        self._lost = lost

    def unwritten(self, lines: int) -> None:
        """So many lines wait, as the disk refuses them."""
        self._unwritten.set(lines)

    def lost(self, lines: int) -> None:
        """So many more lines could not be kept."""
        self._lost.inc(lines)
