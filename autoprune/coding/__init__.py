"""Whole numbers and tensors in few bytes: entropy codes, sparse positions, and readers that trust no byte."""
