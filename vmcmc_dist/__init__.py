"""Variational MCMC teaching: energy-based models with a VAE as amortized sampler, distributed."""

__version__ = "0.1.0"
