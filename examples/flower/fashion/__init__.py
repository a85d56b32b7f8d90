"""Fashion-MNIST on a Flower federation that does not wait for its stragglers."""
