"""The party's durable record of sessions and runs, so that nothing is used twice."""
