"""Settings of daemons and clients: their models, and how they are loaded."""
