"""What makes a model: fit, compare, fine-tune, train from scratch."""
