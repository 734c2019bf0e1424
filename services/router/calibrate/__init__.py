"""Fits and certifies a route's thresholds on its own paired evidence: `pennyweight calibrate`.

`evidence` reads pairs, `fit` learns the models, `policy.certification` proves the thresholds,
`artefact` writes down what routers use, `picture` draws the cost-quality curve.
"""
