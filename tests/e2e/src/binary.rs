//! The programs under test: built once for a test process, with the profile and target folder of the test itself.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::LazyLock,
};

/// Path of the built `specter-server`.
pub fn specter_server() -> &'static Path {
    &BUILT.server
}

/// Path of the built `client-lite`.
pub fn client_lite() -> &'static Path {
    &BUILT.client
}

/// The folder of the whole repository.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

struct Built {
    server: PathBuf,
    client: PathBuf,
}

static BUILT: LazyLock<Built> = LazyLock::new(build);

/// `cargo test` of this crate alone does not build programs of other crates, so each test process asks for them: a second
/// of checking when they are fresh.
fn build() -> Built {
    let executable = env::current_exe().expect("the test knows its own path");
    // …/target/<profile folder>/deps/<test>
    let folder = executable.parent().and_then(Path::parent).expect("a test lies in its profile's folder");
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(name) => name,
    };
    let target = folder.parent().expect("a profile's folder lies in the target folder");
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--bins", "-p", "specter-server", "-p", "client-lite", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(repository())
        .status()
        .expect("cargo runs");
    assert!(status.success(), "the programs under test do not build");
    let suffix = env::consts::EXE_SUFFIX;
    Built {
        server: folder.join(format!("specter-server{suffix}")),
        client: folder.join(format!("client-lite{suffix}")),
    }
}
