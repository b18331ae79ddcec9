"""The configs as a package: ``pkg://detector.configs`` in Hydra's search path, which wants this file in it."""
