"""What block-sparse attention takes; `experiments/block_sparse/run` measures it."""
