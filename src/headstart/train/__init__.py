"""Training: recipes, four trainers, callbacks and checkpoints."""
