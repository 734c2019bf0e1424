"""The ledger: what every request took and cost. `schema` says what is written, `reader` reads."""
