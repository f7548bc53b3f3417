"""Teaching: one iteration of variational MCMC teaching, its losses, its guards."""
