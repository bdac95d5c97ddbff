"""Damage on purpose: what is mutated, killed or starved ends in an answer or a clear refusal, and nothing is lost."""
