"""The trainers `pytorch` and `lightning`, and what they share."""
