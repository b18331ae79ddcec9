"""Ablation studies: factors, levels and seeds in; a table that says which differences are real out."""
