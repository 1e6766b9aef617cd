"""What an operator is given: commands, metrics and health, `sdservectl top`, units. Nothing here imports the master."""
