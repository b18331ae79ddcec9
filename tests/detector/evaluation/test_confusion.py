import numpy as np

from detector.evaluation.confusion import confusion_matrix

CAT, DOG = 1, 2
BOX = (100, 100, 100, 100)
FAR = (400, 400, 50, 50)


def test_confusion_matrix_by_hand(scene):
    matches = scene(
        [(1, CAT, BOX), (1, DOG, FAR), (2, CAT, BOX), (3, DOG, BOX), (4, CAT, (0, 0, 300, 300), "crowd")],
        [
            (1, CAT, BOX, 0.9),
            (1, CAT, FAR, 0.8),
            (2, CAT, FAR, 0.7),
            (3, DOG, BOX, 0.1),
            (4, CAT, BOX, 0.9),
            (3, CAT, (100, 100, 100, 60), 0.5),
        ],
    )
    everything = np.ones(len(matches.score), dtype=bool)
    #      as cat, as dog, not seen
    assert confusion_matrix(matches, everything).tolist() == [[1, 0, 1], [1, 1, 0], [2, 0, 0]]
    # Without the dog of score 0.1, the box of the cat is its nearest.
    assert confusion_matrix(matches, matches.score > 0.2).tolist() == [[1, 0, 1], [2, 0, 0], [1, 0, 0]]
    assert confusion_matrix(matches, ~everything).tolist() == [[0, 0, 2], [0, 0, 2], [0, 0, 0]]


def test_confusion_pairs_the_best_overlap_first(scene):
    matches = scene(
        [(1, CAT, BOX), (1, CAT, (100, 100, 100, 80))],
        [(1, DOG, (100, 100, 100, 80), 0.5), (1, DOG, (100, 100, 100, 85), 0.9)],
    )
    table = confusion_matrix(matches, np.ones(2, dtype=bool))
    assert table.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
