"""How models are spoken to: text and tokens, tensors, streams.

Another dialect of engines, such as a model server with an HTTP interface, in five steps:

1. A class that fits `ports.Engine`, and one that fits `ports.EngineCall`. A call counts what the
   replica made, read or not: that count is what the request is charged.
2. `Capabilities` says what it cannot do. Where it does not count tokens, count those of its text
   and say so: certainty, money and estimates rest on it.
3. `stop` waits until the replica has said how far it came, or says that it never will.
4. A key of `TierOptions` in `policy/routes.py` names the dialect of a tier; `assembly` makes an
   `Engine` of each, and one in front of them that asks the one of `request.tier`.
5. Run the integration tests of the router over a real server of that kind.
"""
