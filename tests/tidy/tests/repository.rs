//! The repository itself, held to every rule.

use std::path::Path;
use tidy::{Tree, Violation, dependency, document, layer, pure, style};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn assert_none(violations: &[Violation]) {
    let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
    assert!(lines.is_empty(), "\n{}\n", lines.join("\n"));
}

fn tree() -> Tree {
    let tree = Tree::read(root()).expect("the repository is readable");
    assert!(tree.has("wire/src/lib.rs"), "this is not the repository");
    tree
}

#[test]
fn modules_of_the_server_name_only_what_lies_below_them() {
    assert_none(&layer::check(&tree()));
}

#[test]
fn crates_and_libraries_are_named_only_where_they_belong() {
    assert_none(&dependency::check(&tree()));
}

#[test]
fn files_that_decide_are_pure() {
    assert_none(&pure::check(&tree()));
}

#[test]
fn the_source_keeps_the_house_style() {
    assert_none(&style::check(&tree()));
}

#[test]
fn every_path_that_the_documents_name_exists() {
    assert_none(&document::check(&tree(), |path| document::exists_below(root(), path)));
}
