from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from las_tune.data.category import find_duplicates, index_category, list_categories
from las_tune.errors import DataError, UserError

from .conftest import MakeCategory, save_image, save_mask

METAL_PLATE = Path(__file__).parents[3] / "shared/data/mpdd/metal_plate"


def test_index_finds_images_and_masks(make_category: MakeCategory) -> None:
    root = make_category(train=3, good=2, rust=2, bent=1)
    category = index_category(root, "part")
    assert category.defects == ("bent", "rust")
    assert [image.key for image in category.train] == [f"train/good/00{i}.png" for i in range(3)]
    assert [image.key for image in category.test] == [
        "test/bent/000.png",
        "test/good/000.png",
        "test/good/001.png",
        "test/rust/000.png",
        "test/rust/001.png",
    ]
    assert [image.mask.name if image.mask else None for image in category.test] == [
        "000_mask.png",
        None,
        None,
        "000_mask.png",
        "001_mask.png",
    ]
    assert category.has_masks and category.masks_missing == 0


def test_masks_match_by_stem_in_any_case_and_extension(make_category: MakeCategory) -> None:
    root = make_category(good=1)
    save_image(root / "part/test/rust/A1.JPG")
    save_image(root / "part/test/rust/b2.png")
    save_mask(root / "part/ground_truth/rust/a1_MASK.Bmp")
    save_mask(root / "part/ground_truth/rust/B2.tif")
    category = index_category(root, "part")
    assert {p.key: p.mask.name for p in category.test if p.mask} == {
        "test/rust/A1.JPG": "a1_MASK.Bmp",
        "test/rust/b2.png": "B2.tif",
    }


def test_masks_may_be_missing(make_category: MakeCategory) -> None:
    root = make_category(rust=2)
    (root / "part/ground_truth/rust/001_mask.png").unlink()
    assert index_category(root, "part").masks_missing == 1
    assert not index_category(root, "part").has_masks
    shutil.rmtree(root / "part/ground_truth")
    assert index_category(root, "part").masks_missing == 2


def test_category_without_defects_has_no_masks(make_category: MakeCategory) -> None:
    assert not index_category(make_category(), "part").has_masks


def test_test_folder_may_be_absent(make_category: MakeCategory) -> None:
    assert index_category(make_category(good=0), "part").test == ()


def test_other_and_hidden_files_are_ignored(make_category: MakeCategory) -> None:
    root = make_category(train=1, good=1)
    for name in ("Thumbs.db", ".DS_Store", "notes.txt", "._000.png"):
        (root / "part/train/good" / name).write_bytes(b"x")
    (root / "part/train/good/folder.png").mkdir()
    save_image(root / "part/test/.ipynb_checkpoints/000.png")
    save_image(root / ".hidden/train/good/000.png")
    assert [image.key for image in index_category(root, "part").train] == ["train/good/000.png"]
    assert len(index_category(root, "part").test) == 1
    assert list_categories(root) == ["part"]


def test_images_that_share_a_mask_are_an_error(make_category: MakeCategory) -> None:
    root = make_category(rust=1)
    save_image(root / "part/test/rust/000.jpg")
    with pytest.raises(DataError) as error:
        index_category(root, "part")
    assert str(error.value) == (
        f"Images and masks in {root / 'part'} do not match one to one: test/rust/000.jpg, "
        "test/rust/000.png, ground_truth/rust/000_mask.png. Rename or remove the duplicates."
    )


def test_two_masks_of_one_image_are_an_error(make_category: MakeCategory) -> None:
    root = make_category(rust=1)
    save_mask(root / "part/ground_truth/rust/000.png")
    with pytest.raises(DataError, match="one to one: test/rust/000.png, ground_truth/rust/000.png, ground"):
        index_category(root, "part")


def test_same_stem_without_masks_is_allowed(make_category: MakeCategory) -> None:
    root = make_category(train=1)
    save_image(root / "part/train/good/000.jpg")
    assert len(index_category(root, "part").train) == 2


@pytest.mark.parametrize("made", [False, True])
def test_data_root_without_categories_is_an_error(tmp_path: Path, made: bool) -> None:
    root = tmp_path / "data"
    if made:
        (root / "part/train").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        index_category(root, "part")
    assert str(error.value) == (
        f"No category found in --data-root {root}{'' if made else ' (no such folder)'}. The layout is "
        "<data-root>/<category>/train/good, test/good, test/<defect>, ground_truth/<defect>. "
        "Run `python -m las_tune data fetch mpdd`, or try rendered parts with "
        "`python -m las_tune --category bracket_black --demo`."
    )


def test_data_root_that_is_a_category_is_an_error(make_category: MakeCategory) -> None:
    root = make_category()
    with pytest.raises(DataError) as error:
        list_categories(root / "part")
    message = str(error.value)
    assert message.startswith(f"No category found in --data-root {root / 'part'}.")
    assert message.endswith(f"Use its parent folder, --data-root {root}.")


def test_relative_data_root_is_shown_as_absolute_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=str(tmp_path / "absent")):
        list_categories(Path("absent"))


def test_unknown_category_lists_the_known_ones(make_category: MakeCategory) -> None:
    make_category("tubes")
    root = make_category()
    with pytest.raises(DataError) as error:
        index_category(root, "prat")
    assert str(error.value) == f"--category 'prat' does not exist in {root}. Found: part, tubes."


@pytest.mark.parametrize("name", ["", ".", "..", "../part", "a/b", "/tmp", "a\\b"])
def test_category_must_be_a_plain_folder_name(make_category: MakeCategory, name: str) -> None:
    with pytest.raises(UserError) as error:
        index_category(make_category(), name)
    assert str(error.value) == (
        f"--category must be the name of a folder in --data-root, got {name!r}. Use one of part."
    )


def test_empty_train_folder_is_an_error(make_category: MakeCategory) -> None:
    root = make_category(train=0, good=2)
    (root / "part/train/good").mkdir(parents=True)
    with pytest.raises(DataError) as error:
        index_category(root, "part")
    assert str(error.value) == (
        f"No images of good parts in {root / 'part/train/good'}. "
        "Add some; supported formats are .bmp .jpeg .jpg .png .tif .tiff .webp."
    )


def test_duplicates_are_found(make_category: MakeCategory) -> None:
    root = make_category(train=2, good=2, rust=1)
    shutil.copy(root / "part/train/good/001.png", root / "part/test/good/001.png")
    assert find_duplicates(index_category(root, "part")) == [("train/good/001.png", "test/good/001.png")]


@pytest.mark.skipif(not METAL_PLATE.is_dir(), reason=f"no real MPDD images at {METAL_PLATE}")
def test_real_metal_plate_is_indexed() -> None:
    category = index_category(METAL_PLATE.parent, "metal_plate")
    assert len(category.train) == 54 and len(category.test) == 26 + 53 + 18
    assert category.defects == ("rust", "scratches") and category.has_masks


# --- any folder is a category or an error ---

FOLDERS = ("train/good", "test/good", "test/rust", "ground_truth/rust", "test", "train", "ground_truth", ".", "other")
WORDS = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20)
NAMES = st.one_of(
    WORDS.filter(lambda name: name not in (".", "..") and len(name.encode()) < 200),
    st.sampled_from(["a.png", "A.PNG", "a_mask.png", "a.jpg", ".a.png", "good", "rust", "a.png.png", "x\n.png"]),
)
ENTRY_TYPES = st.sampled_from(["file", "empty", "folder", "link", "dangling", "loop"])
TREES = st.lists(st.tuples(st.sampled_from(FOLDERS), NAMES, ENTRY_TYPES), max_size=12)


def create(root: Path, tree: list[tuple[str, str, str]]) -> None:
    for folder, name, entry in tree:
        path = root / "part" / folder / name
        if path.exists() or path.is_symlink() or not _create_folder(path.parent):
            continue
        if entry == "folder":
            path.mkdir()
        elif entry in ("file", "empty"):
            path.write_bytes(b"P5 1 1 255 0" if entry == "file" else b"")
        else:
            path.symlink_to({"link": "/dev/null", "dangling": "nowhere", "loop": name}[entry])


def _create_folder(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:  # the path is a file or a link
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(tree=TREES, name=st.one_of(st.just("part"), st.text(max_size=30)))
def test_any_folder_is_a_category_or_an_error(tree: list[tuple[str, str, str]], name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        create(Path(folder), tree)
        try:
            category = index_category(Path(folder), name)
        except UserError as error:
            assert str(error)
            return
        assert category.train and all(image.path.is_file() for image in (*category.train, *category.test))
        keys = [image.key for image in (*category.train, *category.test)]
        assert len(set(keys)) == len(keys)
