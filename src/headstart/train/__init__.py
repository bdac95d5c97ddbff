"""Weights move here: recipes, four trainers, and what watches over them."""
