"""What searches on models too big for this machine would cost; `scripts/dry_run` runs it."""
