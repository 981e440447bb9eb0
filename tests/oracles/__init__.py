"""Independent float64 NumPy twins of what dqx and envs compute in JAX."""
