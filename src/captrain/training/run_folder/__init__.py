"""What a run writes into its folder, and what it reads from there to resume."""
