"""What a scaling policy would have done: a pool that is computed, under the very decision core.

From a trace to figures: `traces` are read, `arrivals` made of them, `fluid` (or `tokens`) serves
them by the constants of `silicon`, `core` or one of the `baselines` says the size, `course` adds up
what came of it, `clairvoyant` says how little could have done. `trial` puts this together for one
policy, `together` for all pools with what they share, `verdict` compares two, `page` draws. Nothing
that serves imports this room but by `trial`, `together` and `verdict`; scipy and matplotlib are
imported where they are used.
"""
