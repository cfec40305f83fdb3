"""How well latency is predicted; `experiments/latency/run` measures it."""
