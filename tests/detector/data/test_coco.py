"""CocoDataset on good data: what an item holds."""

import json
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from detector.data.coco import CocoDataset


def test_item_follows_the_data_contract(write_coco):
    dataset = CocoDataset(
        *write_coco([(5, 1, (10, 5, 20, 8.5), {"category_id": 7, "area": 99.5}), (9, 1, (0, 0, 60, 40))])
    )
    image, target = dataset[0]
    assert image.shape == (3, 40, 60)
    assert image.dtype == torch.float32
    stored = np.asarray(Image.open(dataset.file_path(0)))
    torch.testing.assert_close((image * 255).permute(1, 2, 0), torch.from_numpy(stored.astype(np.float32)))
    expected = {
        "boxes": torch.tensor([[10, 5, 30, 13.5], [0, 0, 60, 40]]),
        "labels": torch.tensor([2, 1]),
        "image_id": torch.tensor(1),
        "area": torch.tensor([99.5, 2400.0]),
        "iscrowd": torch.tensor([0, 0]),
    }
    assert target.keys() == expected.keys()
    for name, value in expected.items():
        assert target[name].dtype == value.dtype, name
        assert torch.equal(target[name], value), name


def test_category_ids_map_to_labels_by_sorted_id(write_coco):
    categories = [{"id": 90, "name": "z"}, {"id": 2, "name": "b"}, {"id": 17, "name": "a"}]
    dataset = CocoDataset(
        *write_coco(
            [(i, 1, (0, 0, 5, 5), {"category_id": c}) for i, c in enumerate((90, 2, 17, 90), 1)], categories=categories
        )
    )
    assert dataset.category_ids == [2, 17, 90]
    assert dataset.class_names == ["b", "a", "z"]
    assert dataset[0][1]["labels"].tolist() == [3, 1, 2, 3]
    assert dataset.class_counts == [1, 1, 2]


def test_image_without_box_has_empty_tensors_of_the_right_kind(write_coco):
    dataset = CocoDataset(*write_coco([(1, 1, (0, 0, 5, 5))]))
    target = dataset[1][1]
    assert target["boxes"].shape == (0, 4)
    assert target["boxes"].dtype == torch.float32
    assert target["labels"].dtype == target["iscrowd"].dtype == torch.int64
    assert [len(target[k]) for k in ("labels", "area", "iscrowd")] == [0, 0, 0]
    assert dataset.box_counts.tolist() == [1, 0]


def test_no_annotation_at_all(write_coco):
    dataset = CocoDataset(*write_coco([]))
    assert len(dataset) == 2
    assert dataset[0][1]["boxes"].shape == (0, 4)
    assert dataset.class_counts == [0, 0]


def test_keep_empty_false_leaves_out_images_without_a_box(write_coco):
    rows = [(1, 2, (1, 2, 3, 4)), (2, 1, (0, 0, 9, 9), {"iscrowd": 1}), (3, 2, (0, 0, 8, 8), {"category_id": 7})]
    dataset = CocoDataset(*write_coco(rows), keep_empty=False)
    assert dataset.image_ids == [2]
    assert dataset.sizes == [(50, 30)]
    assert dataset[0][1]["boxes"].tolist() == [[1, 2, 4, 6], [0, 0, 8, 8]]
    assert dataset[0][1]["labels"].tolist() == [1, 2]


def test_crowds_are_in_the_target_on_demand_only(write_coco):
    files = write_coco(
        [(1, 1, (0, 0, 9, 9), {"iscrowd": 1, "segmentation": {"counts": [1], "size": [40, 60]}}), (2, 1, (1, 1, 5, 5))]
    )
    assert CocoDataset(*files)[0][1]["boxes"].tolist() == [[1, 1, 6, 6]]
    with_crowd = CocoDataset(*files, keep_crowd=True)
    assert with_crowd[0][1]["iscrowd"].tolist() == [1, 0]
    assert with_crowd.box_counts.tolist() == [2, 0]


def test_annotations_need_not_be_sorted_by_image(write_coco):
    rows = [(i, 1 + i % 2, (i, 0, 5, 5)) for i in range(1, 9)]
    dataset = CocoDataset(*write_coco(rows))
    assert dataset[0][1]["boxes"][:, 0].tolist() == [2, 4, 6, 8]
    assert dataset[1][1]["boxes"][:, 0].tolist() == [1, 3, 5, 7]


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ((-0.4, -1, 10.4, 11), [0, 0, 10, 10]),  # rounded, and counted from 1
        ((50, 30, 10.01, 11), [50, 30, 60, 40]),
    ],
)
def test_box_that_leaves_by_at_most_a_pixel_is_clipped_silently(write_coco, box, expected):
    dataset = CocoDataset(*write_coco([(1, 1, box)]))
    assert dataset[0][1]["boxes"].tolist() == [expected]
    assert dataset.problems == []


def test_area_defaults_to_that_of_the_box(write_coco):
    rows = [(1, 1, (0, 0, 4, 5), {"area": ...}), (2, 1, (0, 0, 4, 6), {"area": None})]
    assert CocoDataset(*write_coco(rows))[0][1]["area"].tolist() == [20, 24]


def test_transform_is_applied(write_coco):
    dataset = CocoDataset(*write_coco(), transform=lambda image, target: (image * 0, {**target, "seen": True}))
    image, target = dataset[0]
    assert image.abs().max() == 0
    assert target["seen"]


def test_index_out_of_range_ends_iteration(write_coco):
    dataset = CocoDataset(*write_coco())
    with pytest.raises(IndexError):
        dataset[2]
    assert [int(target["image_id"]) for _, target in dataset] == [1, 2]
    assert int(dataset[-1][1]["image_id"]) == 2


def test_survives_pickling(write_coco):
    dataset = CocoDataset(*write_coco([(1, 1, (0, 0, 5, 5))]))
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0][0], dataset[0][0])
    assert copy[0][1]["boxes"].tolist() == [[0, 0, 5, 5]]


def test_file_with_byte_order_mark_and_other_letters(write_coco):
    file, folder = write_coco([(1, 1, (0, 0, 5, 5))], categories=[{"id": 3, "name": "Kätzchen 猫"}])
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8-sig")
    assert CocoDataset(file, folder).class_names == ["Kätzchen 猫"]


def test_images_in_subfolders(write_coco):
    file, folder = write_coco([(1, 1, (0, 0, 5, 5))], images={1: (40, 60)})
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = "a/b/1.png"
    file.write_text(json.dumps(content))
    (folder / "a/b").mkdir(parents=True)
    (folder / "1.png").rename(folder / "a/b/1.png")
    dataset = CocoDataset(file, folder)
    assert dataset.file_path(0) == folder / "a/b/1.png"
    assert dataset[0][0].shape == (3, 40, 60)


def test_no_python_object_per_annotation_is_kept(write_coco):
    """Loader processes must not copy the annotations: they have to be in arrays."""
    few = CocoDataset(*write_coco([(1, 1, (0, 0, 5, 5))], name="few.json"))
    many = CocoDataset(*write_coco([(i, 1, (0, 0, 5, 5)) for i in range(1, 2001)], name="many.json"))
    assert len(pickle.dumps(many)) - len(pickle.dumps(few)) < 1999 * 50  # 8 + 16 + 8 + 4 + 1 bytes a row
    arrays = [
        v for v in vars(many.table).values() if hasattr(v, "__len__") and len(v) >= 2000 and not isinstance(v, str)
    ]
    assert arrays
    assert all(isinstance(v, np.ndarray) and v.dtype != object for v in arrays)


def test_wrong_on_invalid_is_a_mistake_of_the_caller(write_coco):
    with pytest.raises(ValueError, match="on_invalid"):
        CocoDataset(*write_coco(), on_invalid="ignore")
