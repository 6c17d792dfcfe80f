"""Is a gradient right: exact derivatives, the cases that are checked, and `check_gradients`."""
