"""Cheap repairs of a pruned network: what makes a plan judgeable without a gradient step."""
