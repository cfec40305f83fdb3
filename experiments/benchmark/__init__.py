"""How fast autoprune is, as ratios of two things measured side by side; `scripts/benchmark` runs it."""
