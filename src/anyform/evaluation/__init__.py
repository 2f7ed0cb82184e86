"""How good is a model? Metrics, the protocol that measures a system on held-out objects, and its report."""
