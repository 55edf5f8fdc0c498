"""Faults on purpose: after each, `study run` again gives an undisturbed run's rows, and nothing is left behind."""
