"""Judging what was learnt: pictures, distances in a named net's features, quadrature in 2-D."""
