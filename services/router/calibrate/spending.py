"""How much of a route's risk each of its calibrations may take.

Who calibrates, gathers more evidence and calibrates again until a certificate comes has had as many
chances to be wrong as there were looks. So the risk that is allowed, delta, is spent over them: the
n-th look at a line of evidence takes delta / (zeta(3) n^3). All looks together never take more than
delta, however many there will be, and most is kept for the first: 83 %, then 10 %, then 3 %.
"""

ZETA_3 = 1.2020569031595942
"""Sum of 1 / n^3, rounded down no more than floating point must."""


def level(delta: float, look: int) -> float:
    """Most probability that the certificate of this look is wrong.

    Args:
        delta: that all looks together may take.
        look: number of this one, from 1.
    """
    if look < 1:
        raise ValueError(f"look must be at least 1, got {look}")
    return delta / (ZETA_3 * look**3)
