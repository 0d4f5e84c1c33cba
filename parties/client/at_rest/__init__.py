"""Objects at the parties: how owners put and change them, and how they are found, listed and read."""
