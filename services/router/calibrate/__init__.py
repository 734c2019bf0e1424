"""Fits and certifies a route's thresholds on its own paired evidence: `pennyweight calibrate`.

Offline: nothing that serves requests imports it. `evidence` reads pairs, `fit` learns the models,
`candidates` chooses thresholds, `certification` proves them with the tests of `bounds`, `process`
does all of that in turn, `picture` draws the cost-quality curve, `page` shows it. What routers use
is written down by `services.router.routes.artefact`.
"""
