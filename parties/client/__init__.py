"""What only a user's process does: open sessions, enter data, receive results."""
