"""The only room where PyTorch modules live."""
