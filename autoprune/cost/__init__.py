"""What a plan costs, the budgets that bound it, and the projection of any densities into a budget."""
