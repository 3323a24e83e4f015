"""PyTorch to one ONNX file that carries its manifest and has kept the laws: ``python -m export CHECKPOINT -o FILE.onnx``."""
