"""The router's Prometheus metrics. Labels stay bounded: routes and tiers of the policy, no more."""

from prometheus_client import CollectorRegistry, Counter, Gauge

from services.common.tally import Counted, Histograms

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """Every metric of the router but what waits and runs, which is read from the fleet."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"pennyweight_router_{name}", text, labels, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"pennyweight_router_{name}", text, labels, registry=registry)

        def counted(name: str, text: str, *labels: str) -> Counted:
            return Counted(f"pennyweight_router_{name}", text, labels, registry)

        def seconds(name: str, text: str, *labels: str) -> Histograms:
            return Histograms(f"pennyweight_router_{name}", text, labels, SECONDS, registry)

        self.requests = counted(
            "requests",
            "Requests ended, by route, tier and gRPC status. Failures here are what callers saw.",
            "route", "tier", "status",
        )  # fmt: skip
        self.wakes = counter(
            "wakes_total",
            "Calls to the scaler for a replica of a tier that had none, by answer: coming, none or "
            "unknown (the scaler is away).",
            "tier", "answer",
        )  # fmt: skip
        self.cache_outcomes = counted(
            "cache_outcomes",
            "What the cache had to say, by route. Many 'unavailable': look at the cache service.",
            "route", "outcome",
        )  # fmt: skip
        self.cache_unavailable = counter(
            "cache_unavailable_total", "Cache operations that got no answer and counted as misses."
        )
        self.prompt_tokens = counted("prompt_tokens", "Prompt tokens run.", "tier")
        self.output_tokens = counted("output_tokens", "Output tokens made.", "tier")
        self.micro_usd = counted(
            "cost_micro_usd",
            "Charged at the price list, in micro-USD, for every attempt, evidence included.",
            "route",
        )
        self.baseline_micro_usd = counted(
            "baseline_micro_usd",
            "What the top tier without a cache would have cost, in micro-USD. Savings are the "
            "difference to cost_micro_usd_total.",
            "route",
        )
        self.first_text = seconds(
            "first_text_seconds", "Arrival to first text, by route and tier.", "route", "tier"
        )
        self.total = seconds("total_seconds", "Arrival to end, by route and tier.", "route", "tier")
        self.queued = seconds("queued_seconds", "Waiting for a place on a replica.", "tier")
        self.shed = counter(
            "shed_total", "Requests turned away because the line was full, by tier.", "tier"
        )
        self.unread = counter(
            "unread_total",
            "Calls ended because their callers did not read what was written to them.",
        )
        self.poisonous = counter(
            "poisonous_total",
            "Requests ended or refused because two replicas fell silent or died over them. The log "
            "names the tenants.",
        )
        self.retries = counter(
            "retries_total",
            "Tries on another replica before the first token. Rising: replicas are in trouble.",
            "tier",
        )
        self.log_probs = gauge(
            "engine_log_probs",
            "1 where a tier's engine tells log-probabilities, 0 where it was probed and does not: "
            "then no answer of it stands by its certainty.",
            "tier",
        )
        self.probe_tokens = counter(
            "probe_tokens_total",
            "Tokens of the probes for log-probabilities, prompt and output; charged to nobody.",
            "tier",
        )
        self.replicas = gauge("replicas", "Replicas known, by tier and state.", "tier", "state")
        self.fleet_stale = gauge(
            "fleet_stale", "1 while the scaler is away and the last known fleet is used."
        )
        self.ledger_records = counter("ledger_records_total", "Records written to the ledger.")
        self.ledger_lost = counter(
            "ledger_lost_total", "Records the ledger could not keep. Not 0: look at the disk."
        )
        self.ledger_refused = gauge(
            "ledger_refused",
            "Records that wait because the disk has refused them. Not 0: the ledger cannot be "
            "written; beyond 100,000, or 64 MiB of them, the oldest are lost.",
        )
        self.ledger_gaps = counter(
            "ledger_gaps_total",
            "Requests that routers answered and were killed before they could write their records, "
            "as far as they had said so; found at a start. The ledger's gap records say more.",
        )
        self.load_reports = counter("load_reports_total", "Load reports sent to the scaler.")
        self.escalations = counter(
            "escalations_total",
            "Answers of a lower tier that did not stand, by route and that tier.",
            "route", "tier",
        )  # fmt: skip
        self.pairs = counter(
            "pairs_total",
            "Requests drawn as paired evidence, by route and what became of them: judged, unjudged "
            "(the judge failed, or waits for an outcome), failed (no room or no replica), left_out "
            "(too many at once).",
            "route", "what",
        )  # fmt: skip
        self.shadow_micro_usd = counted(
            "shadow_cost_micro_usd",
            "The part of cost_micro_usd_total that paired evidence took.",
            "route",
        )
        self.judge_failures = counter(
            "judge_failures_total",
            "Pairs that a judge could not judge, by route and why: silent (no answer in time), "
            "failed (an error), nonsense (an answer that is none), busy (too many at once). One "
            "that fails again and again is not asked for a while; that counts as before.",
            "route", "why",
        )  # fmt: skip
        self.outcomes = counter(
            "outcomes_total",
            "What callers said of answers, by route: resolved, unresolved, rated, corrected.",
            "route", "kind",
        )  # fmt: skip
        self.drift = gauge(
            "drift",
            "How far traffic is from its calibration: the escalation rate, or a population "
            "stability index.",
            "route", "watch",
        )  # fmt: skip
        self.drift_limit = gauge(
            "drift_limit", "Upper end of the band that drift should stay in.", "route", "watch"
        )
        self.drift_alert = gauge(
            "drift_alert", "1 while drift is out of its band: calibrate again.", "route", "watch"
        )
        self.policy_version = gauge(
            "policy_version", "1 for the version of the policies in force.", "version"
        )
        self.policy_refused = gauge(
            "policy_refused",
            "1 while the policy files on disk are refused and older policies stay in force.",
        )
        self.policy_refusals = counter(
            "policy_refusals_total", "Changes of the policy files that were refused."
        )
        self.policy_store_failures = counter(
            "policy_store_failures_total",
            "Failed tries to keep the policies in force in the version store. Rising: look at the "
            "disk.",
        )
        self.lever_halted = gauge(
            "lever_halted",
            "1 while a lever is halted, by a person or the guardrail, or nobody knows.",
            "route", "lever",
        )  # fmt: skip
        self.lever_changes = counter(
            "lever_changes_total",
            "Halts and releases made by this router, by who made them: guardrail, person, "
            "calibration. A halt by the guardrail: answers got worse than the route allows.",
            "route", "lever", "author_kind",
        )  # fmt: skip
        self.guard_evidence = gauge(
            "guard_evidence",
            "The guardrail's evidence against a lever as a share of what halts it; against all of "
            "a route together under the lever total.",
            "route", "lever",
        )  # fmt: skip
        self.guard_samples = counter(
            "guard_samples_total",
            "Judged samples that the guardrail took; of all levers together under the lever total.",
            "route", "lever",
        )  # fmt: skip
        self.lever_state_unreachable = gauge(
            "lever_state_unreachable",
            "1 while the shared state is silent or refuses and every lever counts as halted.",
        )
        self.lever_unsaved = gauge(
            "lever_unsaved",
            "Levers whose halt this router alone knows of, as it cannot be written to the shared "
            "state.",
        )
