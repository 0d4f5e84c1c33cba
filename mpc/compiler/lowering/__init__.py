"""From the graph to gates: scales, proved intervals, and one rule for each operator."""
