"""What a fitted model is: classifier, tabular classifier, its folder and its card."""
