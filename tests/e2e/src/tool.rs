//! Programs of the operating system that tests use as visitors and targets.

use std::{
    env,
    path::{Path, PathBuf},
};

/// Folders that hold servers and are not always on a user's path.
const MORE_FOLDERS: [&str; 3] = ["/usr/sbin", "/usr/local/sbin", "/sbin"];

/// Finds an installed program.
///
/// Where one is missing the test says so and is skipped by its caller.
///
/// # Panics
/// If it is missing while `CI` is set: there `.ci/run` installs them all.
pub fn tool(name: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&folders)
        .chain(MORE_FOLDERS.iter().map(|folder| Path::new(folder).to_path_buf()))
        .map(|folder| folder.join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        assert!(env::var_os("CI").is_none(), "{name} is not installed");
        eprintln!("skipped: {name} is not installed");
    }
    found
}
