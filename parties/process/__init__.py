"""What every daemon is as a process: its life, its memory, its signals."""
