"""What ``model.weights`` names: where the file is, what it is, and which of its weights go where."""
