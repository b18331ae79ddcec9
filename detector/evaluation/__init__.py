"""COCO evaluation. In the order in which data flow:

- ``detections``, ``ground_truth``, ``stored_detections``: what is scored, read and checked; ``detect`` runs a detector.
- ``matches``: which detection matches which object; everything below is found in it.
- ``metrics``, ``scoring``: the twelve numbers; ``pycocotools_evaluator`` is the reference for them.
- ``intervals``: the bootstrap over images. ``errors`` (TIDE), ``thresholds``, ``confusion``, ``slices``: what is wrong.
- ``diagnosis``: all of it for one run; ``paired``: for several runs on the same images.
- ``findings``, ``notes``: in words; ``result_tables``, ``comparison_tables``: on the terminal; ``plot_evaluation``,
  ``draw_comparison``, ``prediction_sheet``, ``gallery``, ``html_report``: in pictures.
- ``evaluate``, ``compare``: the commands.
"""
