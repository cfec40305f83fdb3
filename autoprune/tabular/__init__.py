"""Tables: every plan of a small network judged once, as a benchmark with a known optimum."""
