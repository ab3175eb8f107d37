"""What a run writes into its folder, and what it reads there to go on."""
