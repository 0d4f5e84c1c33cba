"""Reading ONNX: files, folding, ranges and the walk that hands each node to its operator."""
