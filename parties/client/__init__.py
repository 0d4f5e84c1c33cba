"""Open sessions, enter data, receive results: only a user's process does this."""
