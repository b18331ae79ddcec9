"""Files given for COCO annotations or results: in any packing and Unicode encoding they are read, others are named."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile

import pytest
import torch

from detector.data.annotations import load_lists
from detector.data.coco import CocoDataset
from detector.data.coco_files import ANNOTATIONS, RESULTS, read_coco
from detector.evaluation.detections import Detections
from detector.evaluation.ground_truth import GroundTruth
from detector.exceptions import DataError

COCO = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "Käfer 虫"}]}
TEXT = json.dumps(COCO, ensure_ascii=False)
VOC = '<annotation verified="yes">\n<folder>x</folder>\n</annotation>'
YOLO = "0 0.5 0.5 0.25 0.25\n1 .1 0.1 1e-2 0.05\n"
KITTI = "Car 0.00 0 -1.57 587.01 173.33 614.12 200.12 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
LABELME = {"version": "5", "flags": {}, "shapes": [], "imagePath": "a.jpg", "imageData": None}


def packed(name):
    """An archive with one file, by the ending of its name."""
    memory = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(memory, "w") as archive:
            archive.writestr("annotations/instances.json", TEXT)
    else:
        with tarfile.open(fileobj=memory, mode="w:gz" if name.endswith(".gz") else "w") as archive:
            member = tarfile.TarInfo("annotations/instances.json")
            member.size = len(TEXT.encode())
            archive.addfile(member, io.BytesIO(TEXT.encode()))
    return memory.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        gzip.compress(TEXT.encode()),
        bz2.compress(TEXT.encode()),
        lzma.compress(TEXT.encode()),
        gzip.compress(TEXT.encode("utf-16")),
        *(TEXT.encode(name) for name in ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be")),
    ],
    ids=range(10),
)
@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_any_packing_and_unicode_encoding_is_read(tmp_path, content, name):
    (tmp_path / name).write_bytes(content)
    assert load_lists(tmp_path / name) == COCO


def test_packed_files_do_in_every_place(write_coco):
    file, folder = write_coco([(1, 1, (5, 5, 10, 10))])
    gz = file.with_name("train.json.gz")
    gz.write_bytes(gzip.compress(file.read_bytes()))
    results = file.with_name("found.json.gz")
    results.write_bytes(gzip.compress(b'[{"image_id": 1, "category_id": 3, "bbox": [5, 5, 10, 10], "score": 0.5}]'))
    assert CocoDataset(gz, folder)[0][1]["boxes"].tolist() == [[5, 5, 15, 15]]
    truth = GroundTruth(gz)
    assert Detections.from_json(results, truth.image_ids, truth.category_ids).boxes_xywh.tolist() == [[5, 5, 10, 10]]


# Name and content of a file, and words of the message.
OTHERS = [
    ("cut.json.gz", gzip.compress(TEXT.encode())[:-9], "cut off"),
    ("cut.json.xz", lzma.compress(TEXT.encode())[:-9], "cut off"),
    ("cut.json", TEXT[: len(TEXT) // 2], "cut off"),
    ("short.json", TEXT[:-1], "cut off"),
    ("zeros.json", bytes(99), "nothing but zeros"),
    ("latin.json", TEXT.replace(" 虫", "").encode("latin-1"), "Latin-1"),
    ("lfs.json", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n", "git lfs pull"),
    ("page.json", "\n<!DOCTYPE html>\n<html><body>Sign in</body></html>", "web page"),
    ("s3.json", '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "error message of a server"),
    ("gone.json", '{"message": "Not Found", "documentation_url": "x"}', "error message of a server"),
    ("coco.zip", packed("coco.zip"), "annotations/instances.json"),
    ("coco.tar", packed("coco.tar"), "annotations/instances.json"),
    ("coco.tar.gz", packed("coco.tar.gz"), "annotations/instances.json"),
    ("a.jpg", b"\xff\xd8\xff\xe0\0\x10JFIF", "picture"),
    ("a.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture"),
    ("a.pkl", b"\x80\x04\x95", "pickle"),
    ("a.parquet", b"PAR1\x15\x04", "Parquet"),
    ("a.xml", VOC, "VOC"),
    ("b.xml", f"<?xml version='1.0' encoding='utf-8'?>\n<!-- made by\nhand -->\n{VOC}", "VOC"),
    ("bom.xml", VOC.encode("utf-8-sig"), "VOC"),
    ("voc.json", VOC, "VOC"),
    ("cvat.xml", '<?xml version="1.0"?>\n<annotations>\n<version>1.1</version>\n</annotations>', "CVAT"),
    ("dlib.xml", "<?xml version='1.0'?>\n<dataset></dataset>", "XML"),
    ("yolo.txt", YOLO, "YOLO"),
    ("polygons.txt", "3 0.1 0.1 0.2 0.1 0.2 0.3\n", "YOLO"),
    ("kitti.txt", KITTI, "KITTI"),
    ("dota.txt", "imagesource:GoogleEarth\ngsd:0.15\n1 2 3 2 3 4 1 4 plane 0\n", "DOTA"),
    ("train.txt", "./images/a.jpg\n./images/b.PNG\n", "list of image files"),
    ("data.yaml", "path: ../x\ntrain: images/train\nnames:\n  0: cat\n", "data.yaml"),
    ("boxes.csv", "filename,width,height,class,xmin\na.jpg,60,40,cat,3\n", "CSV"),
    ("boxes.txt", "a.jpg;1;2;3;4;cat\nb.jpg;1;2;3;4;dog\n", "CSV"),
    ("excel.csv", "a,b,c\n1,2,3\n".encode("utf-16"), "CSV"),
    ("german.csv", "name,klasse,x\na.jpg,Käfer,1\n".encode("latin-1"), "CSV"),
    ("boxes.csv.gz", gzip.compress(b"a,b,c\n1,2,3\n"), "CSV"),
    ("lines.json", '{"a": 1}\n{"a": 2}\n', "JSON lines"),
    ("dict.json", "{'images': []}", "single quotes"),
    ("labelme.json", LABELME, "labelme"),
    ("via.json", {"a.jpg123": {"filename": "a.jpg", "size": 123, "regions": []}}, "VIA"),
    ("project.json", {"_via_settings": {}, "_via_img_metadata": {}}, "VIA"),
    ("supervisely.json", {"tags": [], "size": {"height": 4, "width": 6}, "objects": []}, "Supervisely"),
    ("createml.json", [{"image": "a.jpg", "annotations": [{"label": "cat", "coordinates": {"x": 1}}]}], "CreateML"),
    ("studio.json", [{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": []}]}], "Label Studio"),
    ("dicts.json", [{"file_name": "a.jpg", "height": 4, "annotations": []}], "Detectron2"),
    ("geo.json", {"type": "FeatureCollection", "features": []}, "GeoJSON"),
    ("bdd.json", [{"name": "a.jpg", "labels": []}], "BDD100K"),
]  # fmt: skip
ONLY_ANNOTATIONS = [
    ("results.json", [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}], "results file"),
    ("captions.json", {"images": [], "annotations": [{"image_id": 1, "caption": "a cat"}]}, "captions"),
    ("panoptic.json", {**COCO, "annotations": [{"image_id": 1, "segments_info": []}]}, "segments_info"),
    ("info.json", {"images": [{"id": 1}], "categories": []}, "no 'annotations'"),
]

NAMES = [name for name, _, _ in OTHERS + ONLY_ANNOTATIONS]  # without what is packed: that has the time in it


@pytest.mark.parametrize(("name", "content", "words"), OTHERS + ONLY_ANNOTATIONS, ids=NAMES)
def test_a_file_of_another_kind_is_named(tmp_path, name, content, words):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else (
        content if isinstance(content, str) else json.dumps(content)).encode())  # fmt: skip
    readers = [load_lists] if (name, content, words) in ONLY_ANNOTATIONS else [load_lists, Detections.from_json]
    for read, role in zip(readers, (ANNOTATIONS, RESULTS), strict=False):
        with pytest.raises(DataError) as caught:
            read(file)
        assert str(caught.value).startswith(f"{file}: ")
        assert words in str(caught.value)
        assert role in str(caught.value) or "packed file" in str(caught.value)


def test_a_checkpoint_given_for_annotations(tmp_path):
    torch.save({"a": torch.zeros(1)}, tmp_path / "best.ckpt")
    with pytest.raises(DataError, match=r"best\.ckpt: this is a checkpoint of PyTorch"):
        load_lists(tmp_path / "best.ckpt")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"Annotations/a.xml": VOC, "a.jpg": ""}, "Annotations/a.xml in it is Pascal VOC"),
        ({"labels/train/a.txt": YOLO, "images/train/a.jpg": ""}, "labels/train/a.txt in it is a YOLO label file"),
        ({"data.yaml": "train: x\n", "labels/a.txt": YOLO}, "data.yaml in it is a YOLO data set"),
        ({"a.json": json.dumps(LABELME), "a.jpg": ""}, "a.json in it is labelme's JSON"),
        ({"a.jpg": "", "b.png": ""}, "It holds pictures"),
        ({"train.json": TEXT}, "JSON files in"),
        ({"train.json.gz": TEXT}, "train.json.gz"),
    ],
)
def test_a_folder_given_for_a_file(tmp_path, files, words):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError) as caught:
        load_lists(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: this is a folder, and a file has to be given")
    assert words in str(caught.value)
    with pytest.raises(DataError, match="this is a folder, and a file has to be given"):
        read_coco(tmp_path, RESULTS)


def test_coco_files_are_of_no_other_kind(tmp_path):
    """What tools add to COCO files does not make them files of theirs."""
    more = {"info": {"description": "x"}, "licenses": [], "type": "instances", "version": "5.0", "tags": [], **COCO}
    for indent in (None, 1):
        (tmp_path / "a.json").write_text(json.dumps(more, indent=indent) + "\n\n")
        assert load_lists(tmp_path / "a.json") == more


def test_xml_with_many_comments_is_told_at_once(tmp_path):
    """Comments may be read in one way only, or each of them doubles the time."""
    (tmp_path / "a.json").write_text("<!-- a -->\n" * 500 + "<annotation><object/></annotation>")
    with pytest.raises(DataError, match="VOC"):
        load_lists(tmp_path / "a.json")


@pytest.mark.parametrize(
    "extra", [{"data": [{"id": 1}]}, {"items": []}, {"item": {}}, {"shapes": [], "imagePath": "a"}]
)
def test_keys_of_other_tools_make_no_other_file(tmp_path, extra):
    content = {"images": [], "annotations": [], "categories": [], **extra}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert load_lists(tmp_path / "a.json").keys() >= content.keys()
