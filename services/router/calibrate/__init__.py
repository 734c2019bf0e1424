"""Fits and certifies a route's thresholds on its own paired evidence: `pennyweight calibrate`.

Offline: nothing that serves requests imports it. `evidence` and `labelled` read pairs, `questions`
tells copies and splits, `fit` learns the models, `candidates` chooses thresholds, `certification`
proves them with the tests of `exact` and `bounds`, `process` does all of that in turn. `looks`
counts how often that was done, `spending` says what each look may risk. `work` carries out what the
command line asks; `traffic` says what the evidence looks like, `picture` draws the cost-quality
curve, `page` shows it. What routers use is written down by `services.router.routes.artefact_file`.
"""
