import numpy as np

from detector.evaluation.slices import recall_by_side

CAT = 1


def test_recall_by_side_by_hand(scene):
    sizes = [
        (1, CAT, (0, 0, 10, 10)),
        (2, CAT, (0, 0, 16, 16)),
        (3, CAT, (0, 0, 31, 32)),
        (4, CAT, (0, 0, 300, 300)),
        (4, CAT, (600, 0, 300, 300), "crowd"),
    ]
    matches = scene(
        sizes, [(1, CAT, (0, 0, 10, 7), 0.1), (3, CAT, (0, 0, 31, 32), 0.9), (4, CAT, (600, 0, 300, 300), 1)]
    )
    count, recall = recall_by_side(matches)
    assert count.tolist() == [1, 2, 0, 0, 0, 0, 1]
    assert recall[:, 0].tolist()[:2] == [1, 0.5]
    assert recall[:, 9].tolist()[:2] == [0, 0.5]  # IoU 0.7 is not enough
    assert np.isnan(recall[2]).all()
    assert recall[6].tolist() == [0] * 10
