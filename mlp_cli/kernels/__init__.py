"""Everything that is compiled by numba, and the one place that imports it."""
