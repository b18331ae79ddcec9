"""What happens after training: prediction, export, benchmarks."""
