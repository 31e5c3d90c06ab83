use super::*;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;

fn values() -> Values {
    Values { certificate: Some("PEM\n".to_owned()), ..Values::default() }
}

fn store(folder: &Path, text: &str) -> (Store, PathBuf) {
    let path = folder.join("client.yaml");
    fs::write(&path, text).expect("written");
    (Store::File(path.clone()), path)
}

#[test]
fn a_saved_file_is_whole_secret_and_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, path) = store(folder.path(), "version: 2\napex: h\n");
    // What a killed run left behind is no obstacle.
    fs::write(temporary_path(&path), "torn").expect("written");
    store.check().expect("writable");
    store.save(&values()).expect("saved");
    assert_eq!(fs::read_to_string(&path).expect("read"), "version: 2\napex: h\ncertificate: |\n  PEM\n");
    #[cfg(unix)]
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(folder.path()).expect("read").count(), 1);
}

#[test]
fn a_file_that_was_damaged_meanwhile_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let (store, path) = store(folder.path(), "version: 2\napex: [\n");
    let error = store.save(&values()).expect_err("refused");
    assert!(matches!(error, SaveError::Rewrite { .. }), "{error}");
    assert_eq!(fs::read_to_string(&path).expect("read"), "version: 2\napex: [\n");
}

#[test]
fn a_folder_that_is_gone_is_told_before_anything_is_asked_for() {
    let store = Store::File(PathBuf::from("/nowhere/client.yaml"));
    assert!(store.check().expect_err("refused").to_string().contains("/nowhere/client.yaml cannot be written"));
    Store::Memory.check().expect("memory takes all");
}
