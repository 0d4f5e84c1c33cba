"""Plans rehearsed at their owner's, in the clear: what their outputs are expected to be off by."""
