"""The trainers `tensorflow` and `keras`, and what they share."""
