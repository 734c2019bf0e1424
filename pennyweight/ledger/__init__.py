"""The ledger: what every request took and cost.

`schema` says what is written, `lines` what of it is a record, `reader` and `tail` read it.
"""
