"""Life, memory and signals of a daemon, as a process."""
