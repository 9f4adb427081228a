"""The limit that training is measured against: fused multiply-adds of registers alone, with no memory to wait for."""

from mlp_cli.kernels.jit import kernel
from mlp_cli.kernels.lanes import at, intrinsic, lanes_of, pointer_to
from mlp_cli.kernels.tile import WIDE

# Vectors in flight, each a chain of its own. A core begins two multiply-adds a cycle and has the result of one four or
# five cycles later, so ten registers keep it busy. Where a vector takes two of only 16 registers, six are 12 of them.
CHAINS = 16 if WIDE else 6


@intrinsic("n(p,f,f,i)")
def iterate_vectors(e, values, factor, addend, repetitions):
    """v = factor v + addend, so many times over, for CHAINS vectors at once."""
    places = [e.at(values, e.lanes * i) for i in range(CHAINS)]
    chains = [e.variable(e.load(place)) for place in places]
    x, y = e.splat_double(factor), e.splat_double(addend)
    with e.loop(repetitions):
        for chain in chains:
            chain.set(e.fma(chain.get(), x, y))
    for place, chain in zip(places, chains, strict=True):
        e.store(place, chain.get())


@kernel("n(s[:],f,f,i,i)", entry=True)
def iterate(values, factor, addend, repetitions, thread):
    """v = factor v + addend, so many times over, for the CHAINS vectors of `values` that are this thread's."""
    p = pointer_to(values)
    iterate_vectors(at(p, thread * CHAINS * lanes_of(p)), factor, addend, repetitions)
