"""What is asked of pools: routers' reports added up, engines' pages, answers of a Prometheus.

`signals` makes of it what the core is told. Another signal of routers, in five steps:

1. A field of `TierLoad` in scaler.proto that adds up: a counter or `DurationCounts`.
2. A figure of `LoadTotals` in services/common, whose `+` and `-` must know it. Count it in
   `LoadWindow` of the router, send it in `load_reports` there.
3. Check it in `reports`.
4. Give `Demand` the rate or the quantile that a decision needs, and `Demand` of the proto too;
   a `Measure` of `policy.sizing.settings`, which `Signals` in `signals` reads.
5. Add it to the tests of `LoadTotals`: they try that it adds up in any order and never falls.
"""
