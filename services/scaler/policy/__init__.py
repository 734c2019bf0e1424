"""Pure decisions.

`draining` is every target's: who gives up its work, and when it has. `replicas` is the local
target's: repair on numbered slots. `demand` adds up what routers count.
"""
