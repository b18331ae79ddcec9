"""Choices for cells under a microscope."""

raise RuntimeError("configs are found without an import of their package")
