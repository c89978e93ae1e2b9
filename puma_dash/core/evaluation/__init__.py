"""Evaluation: what is shown of a model; never differentiated."""
