"""The search problem: a task made ready, under a budget, with the only defaults."""
