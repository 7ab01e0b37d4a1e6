"""What an agent is: what it offers, how busy it is, how well it does."""
