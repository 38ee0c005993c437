"""Round weights to integers: to nearest, or with errors that later weights compensate."""
