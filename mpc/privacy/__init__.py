"""What a plan does to people's privacy, proved from its public bytes alone."""
