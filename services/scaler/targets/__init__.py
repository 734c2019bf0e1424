"""Where replicas run: on numbered slots of this host (`local`), on Kubernetes, or with others.

`several` makes one target of those that pools need. Another place is a class of its own here that
fits `ports.Target`:

1. `observe` gives what is there, from memory and whole, or None while it cannot be known.
2. `resize` notes what is wanted; `run` makes it so, and asks for no more than that.
3. Call `on_change` whenever `observe` would say something new.
4. A replica that will be taken away says why in `leaving`, so that the fleet drains it first.
5. `configure` takes changed settings: replace replicas one at a time, and where they fail go back,
   which `PoolStatus.refused` and `in_force` say. `policy.rollout` decides when.
6. Give it a key in `services.scaler.pools.places` and a place in `several`, name it in
   `services.scaler.elsewhere`, and run the fleet's tests over it as they run over `Cluster`, which
   is such a place in a hundred lines.
"""
