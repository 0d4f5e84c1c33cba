"""Questions as arrays: numpy's names on columns whose values nobody sees, down to ONNX, and noised answers."""
