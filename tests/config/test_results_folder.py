"""The results folder has one name, and is none that a run must not write to."""

import os
from pathlib import Path

import pytest
from config_values import changed, config_error

import fmbench
from fmbench.config.folder import results_folder
from fmbench.config.reading import parse

ROOT = Path(fmbench.__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> Path:
    here = tmp_path / "home" / "here"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return here


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("./x", "x"),
        ("x/", "x"),
        ("x/.", "x"),
        ("x//", "x"),
        ("a//b", "a/b"),
        ("a/./b", "a/b"),
        ("a/../b", "b"),
        ("././a/b/../../b/", "b"),
        ("../x", "../x"),
        ("../here/x", "../here/x"),
        ("/tmp//x/", "/tmp/x"),
        ("//tmp/x", "/tmp/x"),
        ("/tmp/a/../x", "/tmp/x"),
        ("x y", "x y"),
        ("x/~", "x/~"),
        ("résultats", "résultats"),
        ("...", "..."),
        ("-x", "-x"),
    ],
)
def test_every_name_of_a_folder_has_one_normal_form(written, normal):
    assert parse(changed(("results_dir", written))).results_dir == normal
    assert results_folder(normal) == normal


@pytest.mark.parametrize(
    ("written", "why"),
    [
        (".", "is the current folder or one that contains it"),
        ("./", "is the current folder"),
        ("a/..", "is the current folder"),
        ("..", "is the current folder or one that contains it"),
        ("../..", "is the current folder or one that contains it"),
        ("../here", "is the current folder"),
        ("/", "is the current folder or one that contains it"),
        ("//", "is the current folder or one that contains it"),
        ("/..", "is the current folder or one that contains it"),
        (".git/x", "is inside .git, where another program keeps its files"),
        ("a/.snakemake", "is inside .snakemake"),
        ("x" * 256, "a name in this path has more than 255 bytes"),
        ("é" * 128, "a name in this path has more than 255 bytes"),
        ("x/" * 1500, "is a path of more than 3,000 bytes"),
        ("s3://bucket/x", "is an address"),
        ("file:///tmp/x", "is an address"),
        ("x\n", "invisible character"),
        ("a\x00b", "invisible character"),
        ("a\udce9", "must be text in Unicode"),
        ("", "must have at least 1 character"),
    ],
)
def test_a_folder_that_results_must_not_go_to_is_refused(written, why):
    message = config_error(changed(("results_dir", written)))
    assert why in message and len(message.split("\n")) == 2


@pytest.mark.parametrize("below", ["", "fmbench", "fmbench/config/x", "workflow", "tests/x", "configs", ".git", "docs/.."])
def test_the_folders_of_the_program_are_refused(below):
    message = config_error(changed(("results_dir", str(ROOT / below))))
    assert "contains the program itself" in message or f"is inside {ROOT / below.split('/')[0]}" in message or ".git" in message


def test_a_folder_beside_the_sources_is_allowed():
    assert results_folder(str(ROOT / "results")) == str(ROOT / "results")
    assert results_folder(str(ROOT / "fmbench2")) == str(ROOT / "fmbench2")


def test_the_home_folder_is_refused_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    with pytest.raises(ValueError, match="is your home folder or one that contains it; choose a folder for the results alone"):
        results_folder(str(tmp_path / "home"))
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(os, "getuid", lambda: 2**31 - 7)  # a user of whom nobody knows a home
    assert results_folder("x") == "x"


def test_a_link_stays_a_link_and_does_not_hide_a_forbidden_folder(elsewhere):
    (elsewhere / "far").mkdir()
    (elsewhere / "link").symlink_to("far")
    assert results_folder("link/") == "link"
    (elsewhere / "up").symlink_to("..")
    with pytest.raises(ValueError, match="is the current folder or one that contains it"):
        results_folder("up")
    (elsewhere / "sources").symlink_to(ROOT / "fmbench")
    with pytest.raises(ValueError, match="belongs to the program"):
        results_folder("sources/x")


def test_a_deleted_current_folder_is_no_reason_to_fail(elsewhere):
    elsewhere.rmdir()
    assert results_folder("./x") == "x"
