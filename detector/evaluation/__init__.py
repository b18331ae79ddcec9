"""COCO evaluation: detections, ground truth, the twelve numbers, tables, files."""
