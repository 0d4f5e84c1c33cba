"""What the daemons and clients are told: models of the settings, and how they are loaded."""
