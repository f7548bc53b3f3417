"""Raw data that means harm: names that leave the folder, files that inflate, bombs."""

from __future__ import annotations

import zipfile

import pytest
from PIL import Image

from vmcmc_dist.data import DataConfig, prepare
from vmcmc_dist.data.sources import images as image_files
from vmcmc_dist.data.sources.images import ImageFiles
from vmcmc_dist.errors import DataError


@pytest.mark.parametrize(
    "name", ["../secret.png", "/etc/secret.png", "a/../../secret.png", "~/x.png"]
)
def test_names_that_leave_the_folder_are_refused(tmp_path, name):
    (tmp_path / "root").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    with pytest.raises(DataError, match="leaves the folder; refused"):
        ImageFiles(tmp_path / "root", 1000).image(name)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(tmp_path / "secret.png", "x.png")
        archive.filelist[0].filename = name
        archive.NameToInfo[name] = archive.filelist[0]
    cfg = DataConfig(source="folder", root=str(tmp_path / "a.zip"), image_size=8)
    with pytest.raises(DataError, match="leaves the folder; refused"):
        prepare(cfg)


def test_celeba_lists_that_name_files_elsewhere_are_refused(tmp_path):
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    for path in (tmp_path / "secret.jpg", root / "img_align_celeba" / "000001.jpg"):
        Image.new("RGB", (178, 218)).save(path)
    names = ["000001.jpg", "../secret.jpg"]
    (root / "list_attr_celeba.txt").write_text("2\nSmiling\n" + "".join(f"{n} 1\n" for n in names))
    (root / "list_eval_partition.txt").write_text("".join(f"{n} 0\n" for n in names))
    with pytest.raises(DataError, match=r"'\.\./secret\.jpg' leaves the folder; refused"):
        prepare(DataConfig(source="celeba", root=str(root)))


def test_a_zip_whose_member_inflates_is_bad(tmp_path, monkeypatch):
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", bytes(4 << 20))
    monkeypatch.setattr(image_files, "MOST_BYTES", 1 << 20)
    with pytest.raises(DataError, match="4194304 bytes, too many"):
        ImageFiles(tmp_path / "a.zip", 1000).read("a.png")


def test_an_image_of_too_many_pixels_is_never_decompressed(tmp_path):
    (tmp_path / "raw").mkdir()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "raw" / "bomb.png")
    Image.new("RGB", (9, 9)).save(tmp_path / "raw" / "good.png")
    cfg = DataConfig(source="folder", root=str(tmp_path / "raw"), image_size=8, max_bad=0.5)
    assert prepare(cfg).bad == ("bomb.png",)
