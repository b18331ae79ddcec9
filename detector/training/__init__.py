"""Training: the Lightning module, optimiser and schedule, callbacks, and the run that puts them together."""
