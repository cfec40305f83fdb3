"""How much each unit matters: a criterion turns a trained network into scores, and scores into a ranking, once."""
