"""Pruning while a network trains: masks, one engine, and the schedules that decide what is removed when."""
