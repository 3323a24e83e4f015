"""PyTorch to one ONNX file with its manifest, held to the laws: ``python -m export CHECKPOINT -o FILE.onnx``."""
