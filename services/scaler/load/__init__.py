"""What routers report of their load, checked and added up.

Another signal for scaling, in five steps:

1. A field of `TierLoad` in scaler.proto that adds up: a counter or `DurationCounts`.
2. A figure of `LoadTotals` in services/common, whose `+` and `-` must know it. Count it in
   `LoadWindow` of the router, send it in `load_reports` there.
3. Check it in `reports`.
4. Give `Demand` the rate or the quantile that a decision needs, and `Demand` of the proto too.
5. Add it to the tests of `LoadTotals`: they try that it adds up in any order and never falls.
"""
