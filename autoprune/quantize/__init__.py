"""Networks whose weights have few values: codebooks that are trained, or whole numbers with a scale."""
